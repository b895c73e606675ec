"""Who holds what, as a csv file says: `row,client` and, if wanted, `part` instead of a split.

    row,client,part
    0,0,train
    1,0,test
    2,1,train

Rows are numbered as in the data set, from 0. A row that is not in the file is nobody's; the factory's are drawn there.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedge.catalog.text import read_text
from fedge.data.dividing.parts import ClientRows
from fedge.errors import UserError

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Given:
    """What the file says of each row [N]: its client, -1 for nobody's; and its part, as an index of train, validation,
    test, where the file has that column (else None)."""

    file: str
    client_N: NDArray[np.int64]
    part_N: NDArray[np.int8] | None

    @property
    def nobodys(self) -> NDArray[np.int64]:
        """Rows that the file gives to no client, in order."""
        return np.flatnonzero(self.client_N < 0)

    def shares(self, clients: int) -> list[NDArray[np.int64]]:
        """Row numbers of each client, in order."""
        return [np.flatnonzero(self.client_N == client) for client in range(clients)]

    def parts(self, rows: NDArray[np.int64]) -> ClientRows:
        """The rows of one client by their parts; only where the file has that column."""
        assert self.part_N is not None
        return ClientRows(*(rows[self.part_N[rows] == part] for part in range(len(_PARTS))))


def read_given(file: str, *, size: int, clients: int) -> Given:
    """Read the csv file for a data set of `size` rows. UserError: the first line that is wrong, and in what; a client
    that gets no row, or none to train on."""
    lines = csv.reader(io.StringIO(read_text(Path(file))), skipinitialspace=True)
    header = [name.strip().lower() for name in next(lines, [])]
    if header not in (["row", "client"], ["row", "client", "part"]):
        raise UserError(
            f"data.partition.file {file}: its first line is {','.join(header)!r}; 'row,client' or "
            "'row,client,part' is wanted"
        )
    client_N = np.full(size, -1, np.int64)
    part_N = np.zeros(size, np.int8)
    for number, row, client, part in _entries(lines, header, file, size, clients):
        if client_N[row] >= 0:
            raise UserError(
                f"data.partition.file {file}, line {number}: row {row} has been given to client {client_N[row]} "
                "already; each row is given once"
            )
        client_N[row], part_N[row] = client, part
    given = Given(file, client_N, part_N if "part" in header else None)
    _require_rows(given, clients)
    return given


def _entries(
    lines: Iterator[list[str]], header: list[str], file: str, size: int, clients: int
) -> Iterator[tuple[int, int, int, int]]:
    """(line, row, client, part) of each line that is not empty."""
    for number, cells in enumerate(lines, 2):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"data.partition.file {file}, line {number}"
        if len(cells) != len(header):
            raise UserError(
                f"{where}: {','.join(cells)!r} has {len(cells)} cells; {','.join(header)} is wanted"
            )
        row = _number(cells[0], "row", size, f"{where}: the data have rows")
        client = _number(cells[1], "client", clients, f"{where}: the fleet has clients")
        part = cells[2].strip().lower() if len(cells) == 3 else _PARTS[0]
        if part not in _PARTS:
            raise UserError(f"{where}: part is {part!r}; take one of {', '.join(_PARTS)}")
        yield number, row, client, _PARTS.index(part)


def _number(cell: str, name: str, count: int, there_are: str) -> int:
    text = cell.strip()
    if not (text.isascii() and text.isdigit()) or int(text) >= count:
        raise UserError(f"{there_are} 0 to {count - 1}, and {name} is {text!r}")
    return int(text)


def _require_rows(given: Given, clients: int) -> None:
    trained_N = given.client_N >= 0
    if given.part_N is not None:
        trained_N &= given.part_N == 0
    count_K = np.bincount(given.client_N[trained_N], minlength=clients)
    if len(empty := np.flatnonzero(count_K == 0)):
        what = "no row of part train" if given.part_N is not None else "no row"
        raise UserError(
            f"data.partition.file {given.file} gives client {empty[0]} of {clients} {what}: "
            "give it one, or lower the fleet's counts"
        )
