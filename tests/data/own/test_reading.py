"""Data folders as data sets: what is read when, and what is found out about files that have changed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fedge
from fedge.catalog.data_folder import FolderFacts, folder_facts
from fedge.catalog.datasets import dataset_facts
from fedge.data.datasets import load_dataset
from fedge.data.own import reading
from fedge.errors import UserError

X = np.random.default_rng(0).integers(0, 256, (12, 2, 4, 6), dtype=np.uint8)
Y = np.arange(12) % 3


@pytest.fixture(autouse=True)
def _fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fedge.write_dataset(
        tmp_path / "mine", X, Y, owner=np.arange(12) // 4, order=-np.arange(12), classes=["a", "b", "c"]
    )


def test_facts_are_known_without_arrays_and_without_numpy(folder: Path) -> None:
    """Breaks if the coordinator, or a check of a scenario, opens what is private or imports what is slow."""
    (folder / "x.npy").unlink()
    code = (
        "import sys; from fedge.catalog.datasets import dataset_facts; "
        f"facts = dataset_facts({str(folder)!r}); print(facts.name, facts.shape, facts.people, facts.classes); "
        "sys.exit(bool({'numpy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "mine/ (2, 4, 6) 3 ('a', 'b', 'c')"


def test_write_dataset_is_had_from_fedge_without_torch() -> None:
    """Breaks if a script that only writes data waits for torch."""
    code = "import sys, fedge; fedge.write_dataset; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_folder_is_loaded_as_it_was_written(folder: Path) -> None:
    """Breaks if rows, owners or names are mixed up, or x is taken into memory."""
    data = load_dataset(str(folder), "")
    assert isinstance(data.x, np.memmap) and np.array_equal(data.x, X) and np.array_equal(data.y, Y)
    assert data.subject is not None and data.subject.tolist() == (np.arange(12) // 4).tolist()
    assert (data.name, data.classes, data.num_classes) == ("mine/", ("a", "b", "c"), 3)
    scaled = X / 255
    assert data.mean == pytest.approx(scaled.mean((0, 2, 3))) and data.std == pytest.approx(
        scaled.std((0, 2, 3))
    )
    rows, owners = data.in_order()
    assert owners.tolist() == (np.arange(12) // 4).tolist()
    assert rows.tolist() == [3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8]  # time runs backwards in the file


def test_arrays_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if each run of a large data set begins with minutes of reading, or if a changed file is not read."""
    first = load_dataset(str(folder), "")
    monkeypatch.setattr(reading, "_check", lambda *_: pytest.fail("read again"))
    assert load_dataset(str(folder), "").mean == first.mean
    x = np.load(folder / "x.npy", "r+")
    x[5, 0, 0, 0] ^= 1
    x.flush()
    monkeypatch.undo()
    with pytest.raises(UserError, match="arrays have changed since"):
        load_dataset(str(folder), "")


def test_a_folder_that_moved_is_the_same_data(folder: Path, tmp_path: Path) -> None:
    """Breaks if the cache goes by where the data lie."""
    moved = Path(shutil.copytree(folder, tmp_path / "there" / "mine"))
    assert load_dataset(str(moved), "").digest == load_dataset(str(folder), "").digest


def change(folder: Path, **facts: object) -> None:
    held = json.loads((folder / "facts.json").read_text())
    (folder / "facts.json").write_text(json.dumps({**held, **facts}))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"size": 13}, "says 13 rows, x.npy has 12: import it anew"),
        ({"shape": [2, 6, 4]}, r"says samples of \[2, 6, 4\]"),
        ({"owners": None}, "owner.npy lies there and facts.json knows nothing of it"),
        ({"version": 2}, "facts.json: 'version'"),
        ({"shape": [2, 4]}, "facts.json: 'shape.2'"),
        ({"train_count": 0}, "facts.json: 'train_count'"),
        ({"train_count": 99}, "train_count is 99 and size 12"),
        ({"classes": ["a"]}, "one class"),
        ({"digest": "blake2b:00"}, "arrays have changed"),
    ],
)
def test_facts_that_do_not_fit_are_refused(folder: Path, facts: dict[str, object], said: str) -> None:
    """Breaks if somebody edits the JSON and a run goes on with something else than what lies there."""
    change(folder, **facts)
    with pytest.raises(UserError, match=said) as caught:
        load_dataset(str(folder), "")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x", "y", "owner", "order"])
@pytest.mark.parametrize("how", ["gone", "cut", "pickle"])
def test_damaged_arrays_are_refused(folder: Path, name: str, how: str) -> None:
    """Breaks if a half-copied file ends in a traceback, or an object array runs code."""
    path = folder / f"{name}.npy"
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        np.save(path, np.array([{}] * 12, dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=f"{name}.npy is (missing|damaged)"):
        load_dataset(str(folder), "")


def test_what_is_no_data_folder_says_how_to_make_one(tmp_path: Path) -> None:
    """Breaks if somebody who points at pictures or at a table is not told the command."""
    for path in (
        "pics/a/1.png",
        "pics/b/2.JPG",
        "parts/train/a/1.png",
        "parts/test/a/2.png",
        "tab/w.csv",
        "f.csv",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for path, said in {
        "pics": "but 2 folders of pictures: fedge import images",
        "parts": "but 1 folders of pictures: fedge import images",
        "tab": "but w.csv: fedge import table",
        "f.csv": "is a file, no data folder: fedge import table",
        "nowhere": "no such folder",
    }.items():
        with pytest.raises(UserError, match=said):
            folder_facts(tmp_path / path)


def test_a_known_name_stays_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a folder `digits` in the working directory changes what a scenario means."""
    fedge.write_dataset(tmp_path / "digits", X, Y)
    fedge.write_dataset(tmp_path / "mine", X, Y)
    monkeypatch.chdir(tmp_path)
    assert not isinstance(dataset_facts("digits"), FolderFacts)
    assert isinstance(dataset_facts("digits/"), FolderFacts) and isinstance(
        dataset_facts("mine"), FolderFacts
    )
    with pytest.raises(UserError, match="did you mean 'digits'"):
        dataset_facts("digit")
