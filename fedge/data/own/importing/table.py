"""A csv or parquet table of sensor data becomes a data folder.

A row is a window, its numbers in `shape` C x H x W (or C x T); or, with `window`, a row is a moment of C channels, and
windows of `window` moments are cut from each owner's recording, `step` apart: none across a change of class or of
labels. Numbers change from moment to moment; a window's are those of its last, when all of it is known.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedge.catalog.facts import Task
from fedge.data.own.folder import write_dataset
from fedge.data.own.importing.images import Imported
from fedge.errors import UserError
from fedge.progress import tell


def import_table(
    source: str | Path,
    folder: str | Path,
    *,
    label: str | Sequence[str],
    owner: str | None = None,
    time: str | None = None,
    shape: Sequence[int] | None = None,
    window: int | None = None,
    step: int | None = None,
    drop: Sequence[str] = (),
    task: Task | None = None,
    overwrite: bool = False,
) -> Imported:
    """Read the table `source`. label: the column of what is to be told, or several, of labels or numbers (`task`).

    owner, time: columns; those left, but for `drop`, are the numbers of x. shape: of a row's numbers, as [C, H, W] or
    [C, T]. window, step: moments per window, and from one to the next (left out: windows do not overlap). UserError, in
    one line, for columns that are not there or hold no numbers.
    """
    targets = [label] if isinstance(label, str) else list(label)
    x_NF, y, owners, times = _columns(source, targets, owner, time, drop)
    kind = task or ("labels" if len(targets) > 1 else "numbers" if y.dtype.kind == "f" else None)
    if window is not None:
        x, rows_MT = _windows(x_NF, _runs(y, kind), owners, times, window, step or window)
        y = y[rows_MT[:, -1]]
        owners, times = (None if values is None else values[rows_MT[:, 0]] for values in (owners, times))
    else:
        x = _shaped(x_NF, shape, source)
    path = write_dataset(
        folder,
        x,
        y,
        owner=owners,
        order=times,
        classes=targets if kind in ("labels", "numbers") else None,
        stride=(step or window) if window is not None and times is not None else None,
        task=kind,
        title=Path(source).stem,
        overwrite=overwrite,
    )
    return Imported(path, len(x))


def _columns(
    source: str | Path, targets: Sequence[str], owner: str | None, time: str | None, drop: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
    """The numbers of x [N, F], y, owners and times of a table's rows."""
    tell("reading")
    table = _read(Path(source))
    tell("importing", 0, len(table))
    named = [*targets, *(column for column in (owner, time, *drop) if column is not None)]
    for name in named:
        if name not in table.columns:
            raise UserError(
                f"{source} has no column {name!r}; there are {', '.join(map(str, table.columns[:20]))}"
            )
    x_NF, y = _numbers(table.drop(columns=named), source), _targets(table, targets, source)
    owners, times = (None if name is None else table[name].to_numpy() for name in (owner, time))
    if any(values is not None and pd.isna(values).any() for values in (y, owners, times)):
        raise UserError(f"{source}: a cell of label, owner or time is empty; fill it in or leave the row out")
    return x_NF, y, owners, times


def _runs(y: NDArray[Any], task: Task | None) -> NDArray[Any]:
    """What a window may hold one of only, for each row [N]: its class or set of labels; numbers change all the time."""
    if task == "numbers":
        return np.zeros(len(y), np.int64)
    return y if y.ndim == 1 else np.unique(y, axis=0, return_inverse=True)[1].reshape(-1)


def _targets(table: pd.DataFrame, targets: Sequence[str], source: str | Path) -> NDArray[Any]:
    """y [N] of one column, [N, K] of several, which hold numbers."""
    if len(targets) == 1:
        column: NDArray[Any] = table[targets[0]].to_numpy()
        return column
    for name in targets:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise UserError(
                f"{source}: column {name!r} holds {table[name].dtype}, no numbers: of several columns each is a "
                "number, or 0 and 1"
            )
    columns: NDArray[Any] = table[list(targets)].to_numpy()
    return columns


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        return pd.read_csv(path, encoding="utf-8-sig")
    except Exception as error:  # parsers raise whatever they like
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} cannot be read as a table ({reason}): give a .csv or .parquet file"
        ) from None


def _numbers(features: pd.DataFrame, source: str | Path) -> NDArray[np.float32]:
    for name in features.columns:
        if not pd.api.types.is_numeric_dtype(features[name]):
            raise UserError(
                f"{source}: column {name!r} holds {features[name].dtype}, no numbers: --drop {name}, or mend it"
            )
    if not len(features.columns):
        raise UserError(f"{source} has no column left for x")
    x_NF: NDArray[np.float32] = features.to_numpy(np.float32)
    return x_NF


def _shaped(
    x_NF: NDArray[np.float32], shape: Sequence[int] | None, source: str | Path
) -> NDArray[np.float32]:
    sizes = tuple(shape or (1, x_NF.shape[1]))
    if len(sizes) not in (2, 3) or min(sizes) < 1 or int(np.prod(sizes)) != x_NF.shape[1]:
        raise UserError(
            f"shape is {','.join(map(str, sizes))} and {source} has {x_NF.shape[1]} columns of numbers; "
            "C,H,W or C,T with that product is wanted"
        )
    return x_NF.reshape(len(x_NF), *sizes)


def _windows(
    x_NF: NDArray[np.float32], run_N: Any, owner: Any, time: Any, window: int, step: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Windows [M, C, T] and their rows [M, T]; each of one owner, and of one run, in the order of time."""
    if window < 1 or step < 1:
        raise UserError(f"window is {window} and step {step}; both are numbers of rows, 1 or more")
    owner_N = np.zeros(len(x_NF), np.int64) if owner is None else np.unique(owner, return_inverse=True)[1]
    rows_N = np.lexsort((np.arange(len(x_NF)) if time is None else time, owner_N))
    breaks = (np.diff(owner_N[rows_N]) != 0) | (run_N[rows_N][1:] != run_N[rows_N][:-1])
    edges = np.r_[0, np.flatnonzero(breaks) + 1, len(rows_N)]
    starts = [s for low, high in itertools.pairwise(edges) for s in range(low, high - window + 1, step)]
    if not starts:
        raise UserError(f"no recording is as long as a window of {window} rows; take a shorter one")
    rows_MT = rows_N[np.asarray(starts)[:, None] + np.arange(window)]
    return x_NF[rows_MT].transpose(0, 2, 1).copy(), rows_MT
