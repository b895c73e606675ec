"""Data at the door: what cannot be trained on is refused by name, in one line."""

import dataclasses

import numpy as np
import pytest

from fedge.data.checks import check_rows, check_size, named_classes
from fedge.data.dataset import DataSet
from fedge.data.dividing.parts import ClientRows
from fedge.data.shard import Shard, write_shards
from fedge.errors import UserError

ROWS = 24


def good() -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).random((ROWS, 3, 8, 8), dtype=np.float32)
    return {"x_NCHW": x, "y_N": np.arange(ROWS) % 4}


def with_value(value: float) -> np.ndarray:
    x = good()["x_NCHW"]
    x[17, 2, 3, 5] = value
    return x


Y = good()["y_N"]
X = good()["x_NCHW"]
FAULTS = [
    ({"y_N": Y.astype(np.float32) / 3}, r"y is float32; wanted whole numbers, the classes 0..3"),
    ({"y_N": Y > 1}, "y is bool; wanted whole numbers"),
    ({"y_N": np.array(["a", "b"] * 12)}, "y is <U1; wanted whole numbers"),
    ({"y_N": Y.astype(object)}, "y is object"),
    ({"y_N": Y[:, None]}, r"y has the shape \[24, 1\]; wanted \[N\], one class per row: y\[:, 0\]"),
    ({"y_N": np.eye(4, dtype=np.int64)[Y]}, r"\[24, 4\].*y.argmax\(1\) if it is one-hot"),
    ({"y_N": Y.tolist()}, r"y is a list; wanted a NumPy array: np.asarray\(y\)"),
    ({"y_N": Y + 1}, "labels 1 to 4 found, 0 to 3 wanted: subtract 1"),
    ({"y_N": Y - 1}, r"labels -1 to 2 found, 0 to 3 wanted.*first in row 0, 6 of 24"),
    (
        {"y_N": np.where(np.arange(ROWS) == 9, 255, Y).astype(np.uint8)},
        "labels 0 to 255 found.*in row 9, 1 of",
    ),
    (
        {"x_NCHW": X.astype(np.float64)},
        r"x is float64; wanted uint8 \(0..255\) or float32: x.astype\(np.float32\)",
    ),
    ({"x_NCHW": X.astype(np.float16)}, "x is float16"),
    ({"x_NCHW": (X * 255).astype(np.int64)}, "x is int64; wanted uint8"),
    ({"x_NCHW": X.astype(object)}, "x is object"),
    ({"x_NCHW": X[:, 0]}, r"x has the shape \[24, 8, 8\]; wanted \[N, 3, 8, 8\]"),
    (
        {"x_NCHW": X.transpose(0, 2, 3, 1)},
        r"\[24, 8, 8, 3\]; wanted \[N, 3, 8, 8\]: x.transpose\(0, 3, 1, 2\)",
    ),
    ({"x_NCHW": X[:, :1]}, r"\[24, 1, 8, 8\]; wanted \[N, 3, 8, 8\]"),
    ({"x_NCHW": X.reshape(ROWS, -1)}, r"\[24, 192\]; wanted \[N, 3, 8, 8\]: reshape the rows"),
    ({"x_NCHW": X[:-4]}, "x has 20, y has 24 rows"),
    ({"subject_N": Y[:5]}, "x has 24, y has 24, subject has 5 rows"),
    ({"subject_N": Y / 2}, "subject is float64"),
    ({"x_NCHW": with_value(np.nan)}, r"x is nan in row 17 \(channel 2, at 3, 5\)"),
    ({"x_NCHW": with_value(-np.inf)}, "x is infinite in row 17"),
]


@pytest.mark.parametrize(("change", "line"), FAULTS, ids=[line[:40] for _, line in FAULTS])
def test_what_cannot_be_trained_on_is_refused_by_name(change, line):
    """A float target would be cut to 0, a label out of range or a nan surface elsewhere under another name."""
    with pytest.raises(UserError, match=line) as caught:
        check_rows(**good() | change, num_classes=4, shape=(3, 8, 8), who="data set 'mine'")
    assert str(caught.value).startswith("data set 'mine': ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint64])
def test_whole_numbers_of_any_width_are_labels(dtype):
    """Labels as files hold them, in bytes, would be refused."""
    check_rows(X, Y.astype(dtype), num_classes=4, who="mine")
    check_rows((X * 255).astype(np.uint8), Y.astype(dtype), num_classes=4, subject_N=Y, who="mine")


def test_values_whose_sum_overflows_are_finite():
    """Sound data of large values would be refused, as their sum is not finite."""
    check_rows(np.full((5000, 1, 1, 2), 3e38, np.float32), np.zeros(5000, np.int8), num_classes=1, who="mine")


def test_a_known_set_has_all_its_rows_and_classes():
    """Some other set under its name would pass for it."""
    with pytest.raises(UserError, match="24 rows found, 70,000 wanted"):
        check_size(X, Y, size=70_000, num_classes=4, who="data set 'mnist'")
    with pytest.raises(UserError, match="no row of class 1 found, and all 4 classes are wanted"):
        check_size(X, np.where(Y == 1, 2, Y), size=ROWS, num_classes=4, who="data set 'mnist'")


def test_classes_are_listed_as_a_person_would():
    """A line would run over a page for a hundred classes."""
    assert named_classes([3]) == "class 3" and named_classes([1, 5, 7]) == "classes 1, 5 and 7"
    assert named_classes(list(range(50))).startswith("50 classes (0, 1, ")


def own(**change: object) -> DataSet:
    return dataclasses.replace(DataSet("own", X, Y, 4, ROWS, (0.5,) * 3, (1.0,) * 3), **change)


def rows(*parts: list[int]) -> ClientRows:
    return ClientRows(*(np.array(part, np.int64) for part in parts))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"y": np.full(ROWS, 0.457)}, "y is float64"),
        ({"y": Y[:, None]}, r"\[24, 1\]"),
        ({"y": Y + 1}, "subtract 1"),
        ({"x": X.astype(np.float64)}, "x is float64"),
        ({"x": with_value(np.nan)}, "nan in row 17"),
        ({"y": Y[:7]}, "y has 7 rows"),
    ],
)
def test_a_device_that_writes_its_own_rows_is_told(change, line, tmp_path):
    """0.457 would be stored as class 0 and trained on without a word."""
    with pytest.raises(UserError, match=line):
        write_shards(own(**change), [rows([0, 1], [2], [3])], tmp_path / "shards")
    assert list(tmp_path.iterdir()) == []


def test_a_device_may_hold_few_of_the_classes(tmp_path):
    """A real device with two of ten classes could not write its rows."""
    write_shards(own(y=np.zeros(ROWS, np.int32)), [rows([0, 1], [2], [3])], tmp_path / "shards")
    assert Shard.open(tmp_path / "shards", 0).labels("train").dtype == np.int64


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (([0, 1], [1], [3]), "client 0: row 1 stands in its parts more than once"),
        (([0, 24], [1], [3]), "client 0: rows 0 to 24 found, and the data have 0 to 23"),
        (([0, -1], [1], [3]), "client 0: rows -1 to 3 found"),
    ],
)
def test_row_numbers_are_rows_and_no_row_is_in_two_parts(parts, line, tmp_path):
    """A row would be tested on that was trained on; -1 would be somebody's last row."""
    with pytest.raises(UserError, match=line):
        write_shards(own(), [rows(*parts)], tmp_path / "shards")
