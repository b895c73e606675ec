"""What data must be before anything is trained on them: one place, asked wherever rows come in.

Each function raises UserError with one line: whose data, what was found, what is wanted, what to do.
Legend: N rows, C channels, H height, W width, K classes numbered 0..K-1.
"""

from typing import Any

import numpy as np

from fedge.catalog.facts import Task
from fedge.data.blocks import blocks
from fedge.data.targets import check_columns
from fedge.errors import UserError

X_DTYPES = (np.dtype(np.uint8), np.dtype(np.float32))
_SHOWN = 10  # classes that a line lists by number


def check_rows(
    x_NCHW: Any,
    y_N: Any,
    *,
    num_classes: int,
    shape: tuple[int, int, int] | None = None,
    subject_N: Any = None,
    task: Task = "classes",
    who: str,
) -> None:
    """All of the below: what a data set, or one device's own rows, must be. `shape`: [C, H, W] where it is known."""
    check_inputs(x_NCHW, shape=shape, who=who)
    if task == "classes":
        check_targets(y_N, num_classes=num_classes, who=who)
    else:
        check_columns(y_N, task, num_classes, who)
    counts = {"x": len(x_NCHW), "y": len(y_N)}
    if subject_N is not None:
        _check_subjects(subject_N, who)
        counts["subject"] = len(subject_N)
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} has {count:,}" for name, count in counts.items())
        raise UserError(
            f"{who}: {found} rows; each row needs one of each: are the files of one part mixed up?"
        )


def check_inputs(x_NCHW: Any, *, shape: tuple[int, int, int] | None = None, who: str) -> None:
    """x [N, C, H, W], uint8 (0..255) or float32, every value finite."""
    _require_array(x_NCHW, "x", who)
    if x_NCHW.dtype not in X_DTYPES:
        advice = (
            "x.astype(np.float32)"
            if x_NCHW.dtype.kind == "f"
            else "x.astype(np.float32), or np.uint8 for 0..255"
        )
        raise UserError(f"{who}: x is {x_NCHW.dtype}; wanted uint8 (0..255) or float32: {advice}")
    if x_NCHW.ndim != 4 or (shape is not None and x_NCHW.shape[1:] != tuple(shape)):
        wanted = ", ".join(["N", *(str(size) for size in shape or "CHW")])
        raise UserError(
            f"{who}: x has the shape {_shown(x_NCHW.shape)}; wanted [{wanted}]{_shape_advice(x_NCHW.shape, shape)}"
        )
    if 0 in x_NCHW.shape[1:]:
        raise UserError(f"{who}: x has the shape {_shown(x_NCHW.shape)}: its rows hold nothing")
    if x_NCHW.dtype.kind == "f":
        _check_finite(x_NCHW, who)


def check_targets(y_N: Any, *, num_classes: int, who: str) -> None:
    """y [N], whole numbers in 0..K-1."""
    _require_array(y_N, "y", who)
    if y_N.dtype.kind not in "iu":
        raise UserError(
            f"{who}: y is {y_N.dtype}; wanted whole numbers, the classes 0..{num_classes - 1}: "
            + ("y.astype(np.int64) if they are" if y_N.dtype.kind in "fb" else "number the classes from 0")
        )
    if y_N.ndim != 1:
        column = y_N.ndim == 2 and y_N.shape[1] == 1
        advice = (
            "y[:, 0]" if column else "y.argmax(1) if it is one-hot" if y_N.ndim == 2 else "one class per row"
        )
        raise UserError(
            f"{who}: y has the shape {_shown(y_N.shape)}; wanted [N], one class per row: {advice}"
        )
    if len(y_N) == 0:
        return
    least, most = int(y_N.min()), int(y_N.max())
    if least < 0 or most >= num_classes:
        advice = (
            "subtract 1" if (least, most) == (1, num_classes) else f"number the {num_classes} classes from 0"
        )
        raise UserError(
            f"{who}: labels {least} to {most} found, 0 to {num_classes - 1} wanted: {advice}"
            + _first_bad_row((y_N < 0) | (y_N >= num_classes))
        )


def check_size(x_NCHW: np.ndarray, y_N: np.ndarray, *, size: int, num_classes: int, who: str) -> None:
    """A set whose numbers are known: all rows, and each class at least once."""
    if len(y_N) != size:
        raise UserError(
            f"{who}: {len(y_N):,} rows found, {size:,} wanted: the files are not those of this data set"
        )
    if missing := absent_classes(y_N, num_classes):
        raise UserError(
            f"{who}: no row of {named_classes(missing)} found, and all {num_classes} classes are wanted: "
            "the files are not those of this data set"
        )


def check_row_numbers(rows: np.ndarray, count: int, *, who: str) -> None:
    """Whole numbers of rows in 0..count-1, none twice: a row in two parts would be trained and tested on."""
    if rows.dtype.kind not in "iu":
        raise UserError(f"{who}: its row numbers are {rows.dtype}; wanted whole numbers, 0 to {count - 1}")
    if len(rows) and (rows.min() < 0 or rows.max() >= count):
        raise UserError(f"{who}: rows {rows.min()} to {rows.max()} found, and the data have 0 to {count - 1}")
    row, times = np.unique(rows, return_counts=True)
    if (times > 1).any():
        raise UserError(
            f"{who}: row {row[times > 1][0]} stands in its parts more than once; each row is in one part"
        )


def absent_classes(y_N: np.ndarray, num_classes: int) -> list[int]:
    """Classes without a row."""
    return [int(label) for label in np.flatnonzero(np.bincount(y_N, minlength=num_classes) == 0)]


def named_classes(labels: list[int]) -> str:
    """ "class 3", "classes 1, 5 and 7", "45 classes (0, 1, ...)"."""
    if len(labels) == 1:
        return f"class {labels[0]}"
    if len(labels) > _SHOWN:
        return f"{len(labels)} classes ({', '.join(map(str, labels[:_SHOWN]))}, ...)"
    return f"classes {', '.join(map(str, labels[:-1]))} and {labels[-1]}"


def _require_array(values: Any, name: str, who: str) -> None:
    if not isinstance(values, np.ndarray):
        raise UserError(
            f"{who}: {name} is a {type(values).__name__}; wanted a NumPy array: np.asarray({name})"
        )


def _check_subjects(subject_N: Any, who: str) -> None:
    _require_array(subject_N, "subject", who)
    if subject_N.dtype.kind not in "iu" or subject_N.ndim != 1:
        raise UserError(
            f"{who}: subject is {subject_N.dtype} of the shape {_shown(subject_N.shape)}; "
            "wanted whole numbers [N], who recorded each row"
        )


def _check_finite(x_NCHW: np.ndarray, who: str) -> None:
    """A sum is finite only where all its terms are, or where it overflows: then the terms are looked at."""
    for start, rows in blocks(x_NCHW):
        if np.isfinite(rows.sum(dtype=np.float64)):
            continue
        bad = ~np.isfinite(rows).all(axis=(1, 2, 3))
        if bad.any():
            row = start + int(bad.argmax())
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(x_NCHW[row]))[0])
            value = "nan" if np.isnan(x_NCHW[row][place]) else "infinite"
            raise UserError(
                f"{who}: x is {value} in row {row} (channel {place[0]}, at {place[1]}, {place[2]}); "
                "wanted finite numbers: mend the row or leave it out"
            )


def _first_bad_row(bad_N: np.ndarray) -> str:
    return f" (first in row {int(bad_N.argmax())}, {int(bad_N.sum()):,} of {len(bad_N):,} rows)"


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _shape_advice(found: tuple[int, ...], shape: tuple[int, int, int] | None) -> str:
    """What turns the shape that was found into the one wanted, where that can be told."""
    if len(found) == 3 and (shape is None or shape[0] == 1):
        return ": x[:, None] adds the channel"
    if len(found) == 4 and shape is not None and (found[3], *found[1:3]) == tuple(shape):
        return ": x.transpose(0, 3, 1, 2) puts the channels first"
    if len(found) == 2:
        return ": reshape the rows"
    return ""
