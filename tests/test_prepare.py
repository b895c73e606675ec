"""Preparation: who gets what, a factory model that is a function of the scenario, and a cache that never lies."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from fedge.data.datasets import load_dataset
from fedge.data.shard import SPLITS, Shard
from fedge.errors import RunError, UserError
from fedge.prepare import prepare, prepare_json


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


def test_other_owners_of_the_same_rows_are_prepared_anew(small, monkeypatch) -> None:
    """Breaks if the cache hands out rows by who used to own them."""
    import dataclasses

    import fedge.prepare as module

    digits = load_dataset("digits", Path())
    folders = set()
    for owners in (6, 9):
        owned = dataclasses.replace(digits, subject=np.arange(len(digits)) % owners)
        monkeypatch.setattr(module, "load_dataset", lambda name, root, owned=owned: owned)
        folders.add(prepare(small()).folder)
    assert len(folders) == 2


@pytest.mark.parametrize(
    "name",
    ["factory.safetensors", "prepared.json", "shards/x.npy", "shards/offsets.npy", "factory-shard/meta.json"],
)
@pytest.mark.parametrize("how", ["cut", "altered", "gone"])
def test_a_damaged_cache_is_found_and_prepared_anew(small, name, how) -> None:
    """Breaks if a full disk's half file, or a changed byte, is trained on or fails on every device."""
    whole = prepare(small())
    path = Path(whole.folder) / name
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        altered = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(content[:-20] if how == "cut" else altered)
    again = prepare(small())
    assert path.read_bytes() == content
    (line,) = [line for line in again.notices if line not in whole.notices]
    assert whole.folder in line and name in line and "prepared anew" in line
    assert prepare(small()) == whole  # and is not told of again


@pytest.mark.parametrize("rate", ["1e6", "1e30"])
def test_a_diverged_factory_model_is_no_model(small, rate, tmp_path) -> None:
    """Breaks if nan weights are shipped to every device, and found in the cache by the next run."""
    for _ in range(2):
        with pytest.raises(
            RunError, match=r"factory model diverged .*: lower model\.factory\.learning_rate"
        ) as caught:
            prepare(small(f"model.factory.learning_rate={rate}"))
        assert "\n" not in str(caught.value)
        assert [path for path in (tmp_path / "prepared").iterdir() if path.is_dir()] == []


def test_a_factory_split_of_no_row_is_refused(small) -> None:
    """Breaks if the factory model ships untrained, unsaid; with epochs 0 it is meant to."""
    with pytest.raises(UserError, match="leaves the factory model none to train on"):
        small("data.factory_fraction=1e-5")
    prepared = prepare(small("data.factory_fraction=1e-5", "model.factory.epochs=0"))
    assert all(bool(torch.isfinite(value).all()) for value in prepared.factory_model().state_dict().values())


def test_notices_are_kept_with_what_was_prepared(small) -> None:
    """Breaks if only the run that prepares the data is told what they leave out."""
    wish = small("data.partition={kind='pathological',classes=1}")
    first, second = prepare(wish), prepare(wish)
    assert (
        first.notices == second.notices and "classes" in first.notices[0] and "no client" in first.notices[0]
    )
    assert prepare_json(wish.model_dump_json(exclude_none=True))["notices"] == first.notices


def test_whatever_goes_wrong_is_one_line_with_a_reason(small, monkeypatch) -> None:
    """Breaks if people are pointed to a file in a temporary folder, on another machine maybe."""
    import fedge.prepare as module

    for failure, reason in [
        (IndexError("index 6 is out of bounds\nfor axis 0"), "IndexError: index 6 is out of bounds"),
        (AssertionError(), "failed: AssertionError"),
        (MemoryError(), "not enough memory"),
    ]:
        monkeypatch.setattr(module, "divide", Mock(side_effect=failure))
        with pytest.raises(RunError, match="preparing data set 'digits' for model 'lenet' failed") as caught:
            prepare_json(small().model_dump_json(exclude_none=True))
        assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_half_a_preparation_is_not_taken_for_a_whole_one(small, tmp_path) -> None:
    """Breaks if a preparation that was killed leaves a folder that later runs believe."""
    folder = Path(prepare(small()).folder)
    (folder / "digests.json").unlink()
    (folder / "factory.safetensors").write_bytes(b"half")
    (folder.parent / f".{folder.name}-left").mkdir()
    prepare(small()).factory_model()
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_what_is_prepared_in_a_cache_that_cannot_be_written_is_used(small, monkeypatch) -> None:
    """Breaks if a cache that is shared read-only serves nobody, or if something new is looked for in it in vain."""
    prepared = prepare(small())

    def read_only(path: Path, mode: str = "r", **options: object) -> object:
        if "w" in mode and str(path).endswith(".lock"):
            raise OSError(30, "Read-only file system")
        return open(path, mode, **options)

    monkeypatch.setattr("fedge.cache.open", read_only, raising=False)
    assert prepare(small()) == prepared
    with pytest.raises(UserError, match="Read-only file system; set FEDGE_CACHE"):
        prepare(small("seed=99"))
