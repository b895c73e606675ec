"""Results as lines of JSON, one per measured row, so that a broken run resumes where it stopped."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure.machine import stamp

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = dict[str, Any]
FOLDER = Path(__file__).parents[1] / "results"


def read_rows(path: Path) -> list[Row]:
    """The finished rows; a line that a crash cut short is left out. No file: none."""
    rows: list[Row] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


class Results:
    """One benchmark's rows in `path`: at most one for each combination of the fields in `key`.

    A torn last line is dropped on opening. Several processes may add rows of different cells to one file.
    """

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.path, self.key, self._stamp = path, tuple(key), stamp()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._replace(read_rows(path))

    @property
    def rows(self) -> list[Row]:
        """All rows so far."""
        return read_rows(self.path)

    def missing(self, cells: "Iterable[DataclassInstance]") -> "list[Any]":
        """Those of `cells` (dataclasses whose fields are the key's) that have no row yet."""
        done = {self._identity(row) for row in self.rows}
        return [cell for cell in cells if self._identity(asdict(cell)) not in done]

    def add(self, row: Row) -> None:
        """Stamp `row` with machine, versions, commit and date; write it, in place of an older one of the same key."""
        row = row | self._stamp
        rows = self.rows
        others = [other for other in rows if self._identity(other) != self._identity(row)]
        if len(others) < len(rows):
            self._replace([*others, row])
        else:
            with self.path.open("a") as lines:
                lines.write(json.dumps(row) + "\n")

    def _identity(self, row: Row) -> str:
        return json.dumps([row.get(field) for field in self.key], sort_keys=True)

    def _replace(self, rows: list[Row]) -> None:
        """All lines at once, so that a kill leaves the old file or the new one."""
        beside = self.path.with_suffix(".part")
        beside.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(beside, self.path)
