"""Data folders: what `write_dataset` writes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.data.own.arrays import as_order, as_owners
from fedge.data.own.folder import ArrayFile, digest, write_dataset
from fedge.errors import UserError

X = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)
Y = np.array([0, 1, 2, 0, 1, 2])


def test_what_is_written_is_what_was_given(tmp_path: Path) -> None:
    """Breaks if rows are lost, change their order or their type, or if the facts do not fit the arrays."""
    folder = write_dataset(
        tmp_path / "d", X, Y, owner=list("aabbcc"), order=[2.5, 0.5, 1, 0, 7, 9], title="six"
    )
    assert np.array_equal(np.load(folder / "x.npy"), X[:, None])
    assert np.array_equal(np.load(folder / "y.npy"), Y)
    assert np.load(folder / "owner.npy").tolist() == [0, 0, 1, 1, 2, 2]
    assert np.load(folder / "order.npy").tolist() == [1, 0, 1, 0, 0, 1]
    facts = json.loads((folder / "facts.json").read_text())
    assert facts.pop("digest").startswith("blake2b:")
    assert facts == {
        "format": "fedge-data", "version": 1, "title": "six", "task": "classes", "shape": [1, 4, 5],
        "classes": ["0", "1", "2"], "size": 6, "train_count": 6, "owners": 3, "ordered": True,
        "stride": None,
    }  # fmt: skip


def test_tasks_are_told_by_the_targets(tmp_path: Path) -> None:
    """Breaks if floats become classes, or a matrix of 0 and 1 becomes numbers: a network would learn something else."""
    numbers = write_dataset(tmp_path / "n", X, np.linspace(0, 1, 6))
    labels = write_dataset(tmp_path / "l", X, np.eye(6, dtype=int)[:, :3], classes=["a", "b", "c"])
    assert np.load(numbers / "y.npy").shape == (6, 1) and np.load(numbers / "y.npy").dtype == np.float32
    assert np.load(labels / "y.npy").dtype == np.uint8
    assert json.loads((labels / "facts.json").read_text())["task"] == "labels"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": X.astype(np.float64)}, "x is float64"),
        ({"x": np.zeros((6, 32, 32, 3), np.uint8)}, "channels last"),
        ({"x": X[0]}, r"shape \[4, 5\]"),
        (
            {"x": np.where(np.arange(6)[:, None, None, None] == 4, np.nan, X[:, None]).astype(np.float32)},
            "row 4",
        ),
        ({"y": Y + 1}, "subtract 1"),
        ({"y": Y - 1}, "labels are -1 to 1"),
        ({"y": Y.astype(float), "task": "classes"}, "task 'classes' wants whole numbers"),
        ({"y": Y[:, None], "task": "classes"}, "one class number or name per sample"),
        ({"y": np.array([0, 2, 0, 2, 0, 2])}, "class '1' has no sample"),
        ({"y": np.zeros(6, int)}, "one class"),
        ({"y": Y[:4]}, "y has 4 rows and x 6"),
        ({"owner": [1, 2]}, "owner has 2 rows"),
        ({"owner": [0.5] * 6}, "owner is float64"),
        ({"order": [np.nan] * 6}, "order is float64"),
        ({"y": np.full((6, 2), 3)}, "other values than 0 and 1"),
        ({"y": np.full((6, 2), 0.5), "task": "labels"}, r"0.5 in row 0, column '0'"),
        ({"y": np.array([0, 1, np.nan, 2, 3, 4])}, r"y holds nan in row 2, column '0' \(1 of 6 rows\)"),
        ({"y": np.array([0, 1, 2, 3, 4, 1e300])}, "y holds 1e\\+300 in row 5"),
        ({"y": np.eye(6), "classes": ["a", "b"]}, "classes has 2 names and y 6 columns"),
        ({"y": np.eye(6)[:, :2], "classes": ["a", "a"]}, "classes has 'a' twice"),
        ({"y": np.zeros((6, 2, 2))}, r"shape \[6, 2, 2\]; task 'numbers' wants \[N, K\]"),
        ({"y": Y.astype(complex), "task": "numbers"}, "y is complex128"),
        ({"y": Y, "task": "number"}, "task is 'number'; take one of classes, labels, numbers"),
        ({"train_count": 7}, "train_count is 7"),
    ],
)
def test_what_is_not_meant_is_refused_and_leaves_nothing(tmp_path: Path, change: dict, said: str) -> None:
    """Breaks if wrong arrays become a data folder, or half of one stays behind."""
    with pytest.raises(UserError, match=said) as refusal:
        write_dataset(tmp_path / "d", **{"x": X, "y": Y} | change)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_not_lost(tmp_path: Path) -> None:
    """Breaks if an import erases what somebody keeps in that folder."""
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not a data folder"):
        write_dataset(tmp_path, X, Y, overwrite=True)
    folder = write_dataset(tmp_path / "d", X, Y)
    with pytest.raises(UserError, match="a data folder"):
        write_dataset(folder, X, Y)
    assert np.array_equal(np.load(write_dataset(folder, X + 1, Y, overwrite=True) / "x.npy"), X[:, None] + 1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-9, 9)), min_size=1, max_size=30))
def test_order_is_a_rank_within_each_owner(rows: list[tuple[int, float]]) -> None:
    """Breaks if one owner's times count among another's, or later ones get lower ranks."""
    owner, times = as_owners(np.array([o for o, _ in rows])), np.array([t for _, t in rows])
    rank = as_order(times, owner)
    for one in set(owner):
        mine = owner == one
        assert sorted(rank[mine]) == list(range(mine.sum()))
        assert (np.diff(times[mine][np.argsort(rank[mine])]) >= 0).all()


def test_a_growing_file_reads_as_numpy_wrote_it(tmp_path: Path) -> None:
    """Breaks if the header that is put right at the end does not fit the rows."""
    with ArrayFile(tmp_path / "a.npy", np.dtype(np.float32), (2, 3)) as file:
        for rows in (1, 0, 4):
            file.append(np.full((rows, 2, 3), rows, np.float32))
    assert np.load(tmp_path / "a.npy").tolist() == [[[1.0] * 3] * 2] + [[[4.0] * 3] * 2] * 4


def test_the_digest_sees_every_array() -> None:
    """Breaks if changed data are taken for what was prepared."""
    arrays = {"x": X, "y": Y}
    assert digest(arrays) == digest({"x": X.copy(), "y": Y.copy()})
    assert len({digest(arrays), digest({"x": X + 1, "y": Y}), digest({"x": X, "y": Y[::-1]})}) == 3
