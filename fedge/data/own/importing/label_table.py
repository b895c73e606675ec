"""Which labels each picture has, by a csv table; folders say nothing then.

    file,dog,indoor,night            file: below the folder of pictures
    a/1.jpg,1,0,1
    b/2.jpg,0,1,0

Pictures that the table does not name are left out, and counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedge.errors import UserError


@dataclass(frozen=True, eq=False)
class LabelTable:
    """The labels' `names`, and file -> 0 and 1 [K], in the table's order."""

    names: list[str]
    rows: Mapping[Path, NDArray[np.uint8]]

    def targets(self, files: Iterable[Path]) -> NDArray[np.uint8]:
        """y [N, K] of these files."""
        return np.stack([self.rows[file] for file in files])


def read_labels(table: str | Path, source: Path) -> LabelTable:
    """The table of the pictures below `source`. UserError: the first thing that is wrong."""
    try:
        frame = pd.read_csv(table, encoding="utf-8-sig", skipinitialspace=True)
    except Exception as error:  # parsers raise whatever they like
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{table} cannot be read as a table ({reason}): give a csv file") from None
    names = [str(name) for name in frame.columns[1:]]
    if frame.columns[0] != "file" or not names or frame.empty:
        raise UserError(
            f"{table}: its first line is {','.join(map(str, frame.columns[:5]))!r}, of {len(frame)} rows; "
            "file,LABEL,LABEL,... is wanted, and a row for each picture"
        )
    files, labels_NK = [str(name) for name in frame["file"]], frame[names].to_numpy()
    odd = np.argwhere(~np.isin(labels_NK, (0, 1)))
    if len(odd):
        row, column = odd[0]
        raise UserError(
            f"{table}: label {names[column]!r} of {files[row]!r} is {str(labels_NK[row, column])!r}; 0 or 1 is wanted "
            "in each cell"
        )
    rows: dict[Path, NDArray[np.uint8]] = {}
    for name, row_K in zip(files, labels_NK.astype(np.uint8), strict=True):
        path = source / name
        if not path.is_file():
            raise UserError(f"{table} names {name!r}, and there is no such file below {source}")
        if path in rows:
            raise UserError(f"{table} names {name!r} twice; each picture has one row")
        rows[path] = row_K
    return LabelTable(names, rows)
