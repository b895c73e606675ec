"""`fedge import hub`, on folders that `datasets` reads without a network."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedge.data.own.importing import import_hub
from fedge.errors import UserError
from tests.data.own.folders import pictures


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def facts(folder: Path) -> dict:
    return json.loads((folder / "facts.json").read_text())


def test_a_folder_of_pictures_in_parts(tmp_path: Path) -> None:
    """Breaks if pictures, their classes or the official training split get lost on the way."""
    for part, count in (("train", 4), ("test", 2)):
        pictures(tmp_path / "pics" / part, count=count)
    made = import_hub(tmp_path / "pics", tmp_path / "out", size=8)
    said = facts(tmp_path / "out")
    assert (made.samples, said["train_count"], said["classes"]) == (18, 12, ["cat", "dog", "owl"])
    x, y = np.load(tmp_path / "out/x.npy"), np.load(tmp_path / "out/y.npy")
    assert x.shape == (18, 3, 8, 8) and x.dtype == np.uint8
    by_class = [x[y == label].mean() for label in range(3)]
    assert (
        by_class == sorted(by_class)
        and y.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [0] * 2 + [1] * 2 + [2] * 2
    )


def test_parquet_with_arrays_numbers_and_owners(tmp_path: Path) -> None:
    """Breaks if arrays of a hub set cannot be brought, or a float becomes a class."""
    rows = [{"signal": [[float(i), 2.0], [3.0, 4.0]], "power": i / 2, "who": "ab"[i % 2]} for i in range(6)]
    (tmp_path / "set").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "set" / "train.parquet")
    import_hub(tmp_path / "set", tmp_path / "out", label="power", owner="who")
    said = facts(tmp_path / "out")
    assert (said["task"], said["shape"], said["owners"]) == ("numbers", [2, 1, 2], 2)
    assert np.load(tmp_path / "out/x.npy")[3].tolist() == [[[3, 2]], [[3, 4]]]
    assert np.load(tmp_path / "out/y.npy")[:, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"label": "weight"}, "has the columns signal, power; the one of what is to be told is wanted"),
        ({}, "--label COLUMN"),
        ({"label": "signal"}, "has 0 columns of pictures or arrays among power"),
        ({"source": "gone"}, "cannot be read by `datasets`"),
    ],
)
def test_what_is_no_such_data_is_one_line(tmp_path: Path, how: dict, said: str) -> None:
    """Breaks if what the hub's library raises reaches a person as a traceback."""
    (tmp_path / "set").mkdir()
    pd.DataFrame([{"signal": [1.0, 2.0], "power": 1.0}] * 3).to_parquet(tmp_path / "set" / "train.parquet")
    source = tmp_path / how.pop("source", "set")
    with pytest.raises(UserError, match=said) as refusal:
        import_hub(source, tmp_path / "out", **how)
    assert "\n" not in str(refusal.value) and not (tmp_path / "out").exists()
