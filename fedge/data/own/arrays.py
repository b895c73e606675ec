"""What a user's arrays may be, and how they are brought to the form that a data folder holds.

Legend: N samples, C channels, H x W pixels, T moments, K classes, labels or numbers. What fedge does not mean is
refused by name, with what was found and what to do.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedge.catalog.facts import Task
from fedge.errors import UserError

_TASKS = ("classes", "labels", "numbers")
_COLOURS = (1, 3, 4)  # sizes of a last axis that is likely the channels


def as_samples(x: NDArray[Any]) -> NDArray[Any]:
    """x as [N, C, H, W] uint8 or float32, a view; UserError for anything else."""
    if x.dtype not in (np.dtype(np.uint8), np.dtype(np.float32)):
        raise UserError(
            f"x is {x.dtype}; samples are uint8 (0..255) or float32: x.astype(numpy.float32), or round to uint8"
        )
    if x.ndim == 3:
        x = x[:, None] if x.dtype == np.uint8 else x[:, :, None]
    if x.ndim != 4 or not x.size:
        raise UserError(f"x has shape {list(x.shape)}; [N, C, H, W] is wanted, or [N, C, T] of a time series")
    if x.shape[3] in _COLOURS and x.shape[1] not in _COLOURS and x.shape[1] > x.shape[3]:
        raise UserError(
            f"x has shape {list(x.shape)}, which looks like channels last; [N, C, H, W] is wanted: "
            "x.transpose(0, 3, 1, 2)"
        )
    if x.dtype == np.float32:
        for start in range(0, len(x), 1024):
            if not np.isfinite(block := x[start : start + 1024]).all():
                row = start + int((~np.isfinite(block)).reshape(len(block), -1).any(1).argmax())
                raise UserError(f"x has nan or infinity in row {row}; mend that sample or leave it out")
    return x


def as_targets(
    y: NDArray[Any], task: Task | None, classes: Sequence[str] | None
) -> tuple[NDArray[Any], Task, list[str]]:
    """y in the form of its task, the task, and the names of its columns or classes."""
    if task is not None and task not in _TASKS:
        raise UserError(f"task is {task!r}; take one of {', '.join(_TASKS)}")
    kind = task or _likely_task(y)
    if kind == "classes":
        return _as_classes(y, classes)
    if y.ndim == 1:
        y = y[:, None]
    if y.ndim != 2 or not y.shape[1]:
        raise UserError(f"y has shape {list(y.shape)}; task {kind!r} wants [N, K]")
    names = list(classes or map(str, range(y.shape[1])))
    if len(names) != y.shape[1]:
        raise UserError(f"classes has {len(names)} names and y {y.shape[1]} columns; each column needs one")
    if len(set(names)) < len(names):
        raise UserError(
            f"classes has {max(names, key=names.count)!r} twice; each column needs a name of its own"
        )
    return (_as_labels(y, names) if kind == "labels" else _as_numbers(y, names)), kind, names


def _as_labels(y: NDArray[Any], names: Sequence[str]) -> NDArray[Any]:
    if y.dtype.kind not in "biuf":
        raise UserError(f"y is {y.dtype}; task 'labels' wants 0 and 1 [N, K], one column a label")
    if (odd := ~np.isin(y, (0, 1))).any():
        row, column = np.argwhere(odd)[0]
        other = "y[:, 0] with task 'classes', or task 'numbers'," if y.shape[1] == 1 else "task 'numbers'"
        raise UserError(
            f"y holds other values than 0 and 1 ({y[row, column]} in row {row}, column {names[column]!r}); task "
            f"'labels' wants them alone, one column a label: {other} is for others"
        )
    return y.astype(np.uint8)


def _as_numbers(y: NDArray[Any], names: Sequence[str]) -> NDArray[Any]:
    if y.dtype.kind not in "iuf":
        raise UserError(f"y is {y.dtype}; task 'numbers' wants finite numbers [N, K]")
    with np.errstate(over="ignore"):
        numbers: NDArray[Any] = y.astype(np.float32)
    if (odd := ~np.isfinite(numbers)).any():
        row, column = np.argwhere(odd)[0]
        raise UserError(
            f"y holds {y[row, column]} in row {row}, column {names[column]!r} ({int(odd.any(1).sum())} of {len(y)} "
            "rows); task 'numbers' wants finite float32 numbers: mend the rows or leave them out"
        )
    return numbers


def _likely_task(y: NDArray[Any]) -> Task:
    if y.dtype.kind in "OUSiu" and y.ndim == 1:
        return "classes"
    if y.ndim == 2 and y.dtype.kind in "biu":
        return "labels"
    if y.dtype.kind == "f":
        return "numbers"
    raise UserError(
        f"y is {y.dtype} {list(y.shape)}; wanted: class numbers or names [N], labels of 0 and 1 [N, K], or numbers"
    )


def _as_classes(y: NDArray[Any], classes: Sequence[str] | None) -> tuple[NDArray[Any], Task, list[str]]:
    if y.ndim != 1:
        raise UserError(
            f"y has shape {list(y.shape)}; task 'classes' wants one class number or name per sample [N]"
        )
    if y.dtype.kind in "OUS":
        names = list(classes) if classes is not None else sorted({str(name) for name in y})
        number = {name: index for index, name in enumerate(names)}
        if unknown := sorted({str(name) for name in y} - set(names)):
            raise UserError(f"y holds {unknown[0]!r}, which is none of the classes {', '.join(names)}")
        y = np.array([number[str(name)] for name in y], np.int64)
    elif y.dtype.kind not in "iu":
        raise UserError(
            f"y is {y.dtype}; task 'classes' wants whole numbers or names: y.astype(int), or another task"
        )
    else:
        names = list(classes) if classes is not None else [str(label) for label in range(int(y.max()) + 1)]
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= len(names):
        more = ": subtract 1" if low == 1 and high == len(names) else ""
        raise UserError(
            f"labels are {low} to {high}; 0 to {len(names) - 1} are wanted for {len(names)} classes{more}"
        )
    count_K = np.bincount(y, minlength=len(names))
    if len(names) < 2:
        raise UserError(f"there is one class, {names[0]!r}; a network needs two at least to tell apart")
    if empty := [name for name, count in zip(names, count_K, strict=True) if not count]:
        advice = (
            ": labels begin at 1, subtract 1"
            if low == 1 and len(empty) == 1
            else ": leave it out of the classes"
        )
        raise UserError(f"class {empty[0]!r} has no sample (labels found: {low} to {high}){advice}")
    return y.astype(np.int64), "classes", names


def as_owners(owner: NDArray[Any]) -> NDArray[np.int64]:
    """Owners as numbers 0 .. P-1, in the order of their names or numbers."""
    if owner.ndim != 1 or owner.dtype.kind not in "OUSiu":
        raise UserError(
            f"owner is {owner.dtype} {list(owner.shape)}; one name or whole number per sample is wanted [N]"
        )
    return np.unique(owner.astype(str) if owner.dtype.kind == "O" else owner, return_inverse=True)[1].astype(
        np.int64
    )


def as_order(order: NDArray[Any], owner: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """When each sample was taken, as its rank among its owner's (of all, without owners); equal times by row."""
    if (
        order.ndim != 1
        or order.dtype.kind not in "iufM"
        or (order.dtype.kind == "f" and not np.isfinite(order).all())
    ):
        raise UserError(
            f"order is {order.dtype} {list(order.shape)}; one finite time or number per sample is wanted [N]"
        )
    owner_N = np.zeros(len(order), np.int64) if owner is None else owner
    if len(owner_N) != len(order):
        raise UserError(
            f"order has {len(order)} rows and owner {len(owner_N)}; each sample needs one of each"
        )
    sorted_N = np.lexsort((order, owner_N))
    first_N = np.r_[True, np.diff(owner_N[sorted_N]) != 0]
    place_N = np.arange(len(order))
    rank_N = np.empty(len(order), np.int64)
    rank_N[sorted_N] = place_N - np.maximum.accumulate(np.where(first_N, place_N, 0))
    return rank_N
