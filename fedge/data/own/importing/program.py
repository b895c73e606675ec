"""A generator of one's own becomes a data folder: what no other importer reads.

def rows():                       # mydata.py
    for recording in ...:
        yield x, y                # x: [C, H, W] or [C, T], uint8 or float32; y: a class number or name, or numbers
        yield x, y, owner         # whose it is
        yield x, y, owner, time   # and when it was taken
"""

import runpy
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fedge.catalog.facts import Task
from fedge.data.own.folder import write_dataset
from fedge.data.own.importing.images import Imported
from fedge.errors import UserError
from fedge.progress import tell


def import_program(
    source: str | Path, folder: str | Path, *, task: Task | None = None, overwrite: bool = False
) -> Imported:
    """Run the program `source`, write what its `rows()` yields. UserError where it raises or yields anything else."""
    path = Path(source)
    try:
        rows = runpy.run_path(str(path)).get("rows")
        if not callable(rows):
            raise UserError(
                f"{path} defines no function rows(); it yields (x, y), (x, y, owner) or (x, y, owner, time)"
            )
        samples = list(_checked(path, rows()))
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        where = f" on line {frames[-1].lineno}" if frames else ""
        raise UserError(
            f"{path} raised {type(error).__name__}{where}: {' '.join(str(error).split())[:200]}"
        ) from None
    if not samples:
        raise UserError(f"{path}: rows() yielded nothing")
    columns = list(zip(*samples, strict=True))
    written = write_dataset(
        folder,
        _stacked(path, columns[0]),
        np.array(columns[1]),
        owner=np.array(columns[2]) if len(columns) > 2 else None,
        order=np.array(columns[3]) if len(columns) > 3 else None,
        task=task,
        title=path.stem,
        overwrite=overwrite,
    )
    return Imported(written, len(samples))


def _checked(path: Path, rows: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
    length = None
    for number, row in enumerate(rows):
        tell("importing", number)
        if not isinstance(row, tuple) or len(row) not in (2, 3, 4) or length not in (None, len(row)):
            raise UserError(
                f"{path}: rows() yielded {type(row).__name__} as row {number}; wanted, the same each time: (x, y), "
                "(x, y, owner) or (x, y, owner, time)"
            )
        length = len(row)
        yield row


def _stacked(path: Path, samples: Iterable[Any]) -> Any:
    arrays = [np.asarray(x) for x in samples]
    for number, x in enumerate(arrays):
        if (x.shape, x.dtype) != (arrays[0].shape, arrays[0].dtype):
            raise UserError(
                f"{path}: x of row {number} is {x.dtype} {list(x.shape)} and of row 0 {arrays[0].dtype} "
                f"{list(arrays[0].shape)}; all must be alike"
            )
    return np.stack(arrays)
