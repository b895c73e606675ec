"""What a person is told of how the data were divided."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from fedge.data.dataset import DataSet
from fedge.data.dividing.notices import division_notices
from fedge.data.dividing.parts import ClientRows, DividedRows
from fedge.data.dividing.repeats import equal_groups, repeated_test_rows
from fedge.data.partition import divide


def data(rows: int = 400, classes: int = 10, people: int | None = None) -> DataSet:
    row_N = np.arange(rows)
    x = np.random.default_rng(0).integers(0, 256, (rows, 1, 5, 5), dtype=np.uint8)  # 25 bytes: no whole words
    subject = row_N % people + 1 if people else None
    return DataSet("toy", x, row_N % classes, classes, rows, (0.0,), (1.0,), subject)


def choice(kind: str, factory: float = 0.25, test: float = 0.2, **parameters: object) -> SimpleNamespace:
    split = SimpleNamespace(by="row", train=0.8 - test, validation=0.2, test=test)
    return SimpleNamespace(
        factory_fraction=factory, partition=SimpleNamespace(kind=kind, **parameters), split=split
    )


def told(dataset: DataSet, wish: SimpleNamespace, clients: int) -> list[str]:
    lines = division_notices(dataset, divide(dataset, wish, clients=clients, seed=0), wish)
    assert all("\n" not in line for line in lines)
    return lines


def test_a_division_without_loss_says_nothing():
    """People would learn to read past notices."""
    assert told(data(), choice("iid"), 6) == []
    assert told(data(), choice("pathological", classes=2), 10) == []
    assert told(data(), choice("iid", test=0.0), 6) == []  # nobody is tested because nobody is to be


@pytest.mark.parametrize(
    ("task", "y", "said"),
    [
        (
            "labels",
            np.eye(3)[np.arange(400) % 3],
            "exactly one of its labels: if they are classes, write y.argmax(1)",
        ),
        ("labels", np.arange(1200).reshape(-1, 3) % 5 == 0, ""),
        ("labels", [[1, n % 2, 0] for n in range(400)], "labels that are the same in every row of 'toy'"),
        (
            "numbers",
            np.arange(400)[:, None] % 4,
            "the numbers of 'toy' are 0 to 3 and whole: if they are classes",
        ),
        ("numbers", np.arange(400)[:, None] % 4 / 2, ""),
        ("numbers", [[n % 4, 7] for n in range(400)], "numbers that are the same in every row of 'toy'"),
    ],
)
def test_targets_that_may_have_been_meant_otherwise_are_told(task, y, said):
    """Breaks if one-hot classes are trained as labels, or a constant column is, and nobody hears of it."""
    y = np.asarray(y).astype(np.uint8 if task == "labels" else np.float32)
    dataset = dataclasses.replace(
        data(), y=y, task=task, num_classes=y.shape[1], classes=("a", "b", "c")[: y.shape[1]]
    )
    lines = told(dataset, choice("iid"), 6)
    assert [said in line for line in lines] == ([True] if said else [])


def test_classes_of_nobody_are_named():
    """Two fifths of the data would vanish without a word."""
    (line,) = told(data(), choice("pathological", classes=1), 7)
    assert "leaves 92 of 300 rows to no client; classes 7, 8 and 9 are nobody's: have more clients" in line


def test_rows_that_shards_leave_over_and_people_beyond_the_clients_are_counted():
    """As above, for the other partitions."""
    (line,) = told(data(), choice("shards", per_client=3), 7)
    assert "leaves 6 of 300 rows to no client" in line and "class" not in line
    (line,) = told(data(people=8), choice("natural"), 6)
    assert "to no client" in line and "'natural'" in line


def test_clients_without_a_test_row_are_counted():
    """Their silence in the summary would be a riddle."""
    wish = choice("iid", factory=0.9)
    (line,) = [line for line in told(data(rows=100), wish, 6) if "test row" in line]
    assert line == "6 of 6 clients have no test row: they report no accuracy"


def test_classes_that_the_factory_lacks_and_that_nobody_has_are_named():
    """A factory model would be blamed for what it never met."""
    dataset = data()
    assert "the factory split holds no row of" in " ".join(told(dataset, choice("iid", factory=0.01), 3))
    fewer = dataclasses.replace(dataset, y=np.where(dataset.y == 4, 5, dataset.y))
    assert told(fewer, choice("iid", factory=0.5), 3) == ["data set 'toy' holds no row of class 4"]


def rows(*parts: list[int]) -> ClientRows:
    return ClientRows(*(np.array(part, np.int64) for part in parts))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_test_rows_that_were_trained_on_are_counted(dtype):
    """A test set that repeats its training set would flatter without a word."""
    dataset = data(rows=40)
    x = dataset.x.astype(dtype)
    x[20], x[21], x[22], x[30] = x[0], x[1], x[10], x[31]
    divided = DividedRows(
        rows([0, 1, 2], [], []), (rows([10, 3], [], [20, 22, 5]), rows([4], [31], [21, 30, 6]))
    )
    assert repeated_test_rows(x, divided.factory, divided.clients) == (2, 1)
    lines = division_notices(dataclasses.replace(dataset, x=x), divided, choice("iid"))
    assert any(
        "of 6 test rows, 2 equal a row that the factory" in line and "and 1 one that" in line
        for line in lines
    )


def test_equal_rows_share_a_group_and_others_do_not():
    """Rows would be called repeated that differ in one pixel, or equal ones be missed beyond the second."""
    x = data(rows=9000).x
    assert equal_groups(x) is None
    x[8999] = x[4500] = x[3]
    group_N = equal_groups(x)
    assert group_N[8999] == group_N[4500] == group_N[3] and len(set(group_N)) == 8998
    x[4500, 0, 4, 4] ^= 1
    assert len(set(equal_groups(x))) == 8999
