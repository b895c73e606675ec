"""What is known of a row by task: how its target is stored, checked, and standardised.

    classes   int64 [N]         0..K-1
    labels    uint8 [N, K]      0 or 1
    numbers   float32 [N, K]    finite, in the data's own unit; standardised when a batch is made, as x is normalised

Legend: N rows, K classes, labels or numbers.
"""

from typing import Any

import numpy as np

from fedge.catalog.facts import Task
from fedge.errors import UserError

DTYPES: dict[Task, np.dtype[Any]] = {
    "classes": np.dtype(np.int64),
    "labels": np.dtype(np.uint8),
    "numbers": np.dtype(np.float32),
}


def row_shape(task: Task, num_classes: int) -> tuple[int, ...]:
    """Of one row's target."""
    return () if task == "classes" else (num_classes,)


def check_columns(y_NK: Any, task: Task, num_classes: int, who: str) -> None:
    """y of labels or numbers: stored as above. UserError in one line."""
    if not isinstance(y_NK, np.ndarray) or y_NK.dtype != DTYPES[task]:
        got = y_NK.dtype if isinstance(y_NK, np.ndarray) else type(y_NK).__name__
        raise UserError(f"{who}: y is {got}; task {task!r} wants {DTYPES[task]}: y.astype(np.{DTYPES[task]})")
    if y_NK.ndim != 2 or y_NK.shape[1] != num_classes:
        raise UserError(
            f"{who}: y has the shape {list(y_NK.shape)}; wanted [N, {num_classes}], one column for each of its {task}"
        )
    bad_N = (y_NK > 1 if task == "labels" else ~np.isfinite(y_NK)).any(1)
    if bad_N.any():
        row = int(bad_N.argmax())
        found, wanted = (
            (f"{y_NK[row].max()}", "0 and 1") if task == "labels" else ("nan or infinity", "numbers")
        )
        raise UserError(
            f"{who}: y holds {found} in row {row} ({int(bad_N.sum()):,} of {len(y_NK):,} rows); {wanted} are wanted: "
            "mend the rows or leave them out"
        )


def target_statistics(y_NK: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each number; 1 where that is 0: a constant is centred and left at that."""
    mean_K, std_K = y_NK.mean(0, dtype=np.float64), y_NK.std(0, dtype=np.float64)
    return tuple(map(float, mean_K)), tuple(float(std) or 1.0 for std in std_K)
