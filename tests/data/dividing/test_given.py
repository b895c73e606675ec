"""Partitions from a file: who holds what is what the file says, and a file that is wrong is refused by its line."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fedge.data.dataset import DataSet
from fedge.data.partition import divide
from fedge.errors import UserError


def data(ordered: bool = False) -> DataSet:
    x = np.arange(40 * 4, dtype=np.uint8).reshape(40, 1, 2, 2)
    return DataSet("toy", x, np.arange(40) // 10 % 2, 2, 40, (0.0,), (1.0,), ordered=ordered)


def choice(path: Path, text: str, by: str = "row", gap: int | None = None) -> SimpleNamespace:
    path.write_text(text, encoding="utf-8")
    split = SimpleNamespace(by=by, train=0.5, validation=0.25, test=0.25, gap=gap)
    return SimpleNamespace(
        factory_fraction=0.25, partition=SimpleNamespace(kind="given", file=str(path)), split=split
    )


def test_rows_go_where_the_file_says(tmp_path: Path) -> None:
    """Breaks if a client gets another's row, or a row of its own trains the factory model."""
    lines = "\n".join(f"{row},{row % 2}" for row in range(24))
    divided = divide(
        data(), choice(tmp_path / "who.csv", f"\ufeffrow, client\n{lines}\n\n"), clients=2, seed=0
    )
    for client, rows in enumerate(divided.clients):
        assert sorted(np.concatenate(rows.parts)) == list(range(client, 24, 2))
        assert [len(part) for part in rows.parts] == [6, 3, 3]
    assert len(divided.factory.train) == 10 and set(divided.factory.train) <= set(range(24, 40))


def test_a_column_of_parts_replaces_the_split(tmp_path: Path) -> None:
    """Breaks if rows that were meant for testing are trained on."""
    text = "row,client,part\n0,0,train\n3,0,Test\n2,0,validation\n9,1,train\n"
    divided = divide(data(), choice(tmp_path / "who.csv", text), clients=2, seed=0)
    assert [part.tolist() for part in divided.clients[0].parts] == [[0], [2], [3]]
    assert [part.tolist() for part in divided.clients[1].parts] == [[9], [], []]


def test_given_rows_can_be_cut_by_time(tmp_path: Path) -> None:
    """Breaks if tomorrow's rows train what is tested on yesterday's, or the gap that was asked for is not left."""
    lines = "\n".join(f"{row},0" for row in range(32))
    wish = choice(tmp_path / "who.csv", f"row,client\n{lines}", by="time", gap=2)
    divided = divide(data(ordered=True), wish, clients=1, seed=0)
    train, validation, test = divided.clients[0].parts
    assert train.max() + 3 <= validation.min() and validation.max() + 3 <= test.min()
    assert set(divided.factory.train) <= set(range(32, 40))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line is ''; 'row,client' or"),
        ("client,row\n0,0", "first line is 'client,row'"),
        ("row,client\n0,0\n0,1", "line 3: row 0 has been given to client 0 already"),
        ("row,client\n40,0", "line 2: the data have rows 0 to 39, and row is '40'"),
        ("row,client\n-1,0", "row is '-1'"),
        ("row,client\n1.0,0", "row is '1.0'"),
        ("row,client\n1,2", "the fleet has clients 0 to 1, and client is '2'"),
        ("row,client\n1", "line 2: '1' has 1 cells"),
        ("row,client\n1,0", "gives client 1 of 2 no row"),
        ("row,client,part\n1,0,train\n2,1,test", "gives client 1 of 2 no row of part train"),
        ("row,client,part\n1,0,tset", "part is 'tset'; take one of train, validation, test"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    """Breaks if a slip in a long table divides the data in another way than was meant."""
    with pytest.raises(UserError, match=said) as caught:
        divide(data(), choice(tmp_path / "who.csv", text), clients=2, seed=0)
    assert "\n" not in str(caught.value) and "who.csv" in str(caught.value)
