"""Preparation: who gets what, a factory model that is a function of the scenario, and a cache that never lies."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedge.data.datasets import load_dataset
from fedge.data.shard import SPLITS, Shard
from fedge.prepare import prepare


@pytest.fixture(autouse=True)
def _fresh_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FEDGE_CACHE", str(tmp_path))


def shards(prepared) -> list[Shard]:
    folder = Path(prepared.folder)
    return [Shard.open(folder / "shards", client) for client in range(6)] + [
        Shard.open(folder / "factory-shard", 0)
    ]


def test_every_row_has_one_owner(small) -> None:
    """Breaks if a client's row trains the factory model, or two clients share one: nothing would be private."""
    prepared = prepare(small())
    rows = [
        row.tobytes() + label.tobytes()
        for shard in shards(prepared)
        for split in SPLITS
        for row, label in zip(*shard.arrays(split), strict=True)
    ]
    digits = load_dataset("digits", Path())
    everything = [row.tobytes() + label.tobytes() for row, label in zip(digits.x, digits.y, strict=True)]
    assert sorted(rows) == sorted(everything)


def test_the_factory_model_is_a_function_of_the_scenario(small, monkeypatch, tmp_path) -> None:
    """Breaks if two preparations of one scenario ship different firmware: no run could be repeated."""
    first = prepare(small()).factory_model().state_dict()
    monkeypatch.setenv("FEDGE_CACHE", str(tmp_path / "elsewhere"))
    torch.set_num_threads(2)  # whatever the process was set to
    second = prepare(small()).factory_model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_prepared_once_and_again_when_something_changes(small) -> None:
    """Breaks if a changed scenario is answered with another's data, or an unchanged one is prepared twice."""
    folder = prepare(small()).folder
    stamp = (Path(folder) / "prepared.json").stat().st_mtime_ns
    assert prepare(small("training.epochs=7", "engine.hosts=2")).folder == folder
    assert (Path(folder) / "prepared.json").stat().st_mtime_ns == stamp
    changed = ["seed=8", "data.factory_fraction=0.2", "data.split={train=0.8,validation=0.1,test=0.1}"]
    changed += ["model.factory.epochs=2", "fleet.0.count=3", "data.partition={kind='iid'}"]
    assert len({prepare(small(change)).folder for change in changed} | {folder}) == 7


def test_changed_data_are_prepared_anew(small, monkeypatch) -> None:
    """Breaks if the cache goes by a data set's name and not by its bytes."""
    import dataclasses

    import fedge.prepare as module

    before = prepare(small()).folder
    digits = load_dataset("digits", Path())
    x = np.array(digits.x)
    x[0, 0, 0, 0] += 1
    monkeypatch.setattr(module, "load_dataset", lambda name, root: dataclasses.replace(digits, x=x))
    assert prepare(small()).folder != before


def test_half_a_preparation_is_not_taken_for_a_whole_one(small, tmp_path) -> None:
    """Breaks if a preparation that was killed leaves a folder that later runs believe."""
    folder = Path(prepare(small()).folder)
    (folder / "prepared.json").unlink()
    (folder / "factory.safetensors").write_bytes(b"half")
    (folder.parent / f".{folder.name}-left").mkdir()
    prepare(small()).factory_model()
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]
