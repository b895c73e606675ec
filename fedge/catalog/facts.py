"""What is known of one data set without opening a file of it."""

from dataclasses import dataclass
from typing import Literal

Task = Literal["classes", "labels", "numbers"]
"""What a network is asked for: one of K classes, any of K labels, K numbers."""


@dataclass(frozen=True)
class DatasetFacts:
    """One data set: `shape` [C, H, W]; `size` rows in all, the first `train_count` its training split;
    `people` who recorded it (None: unknown); `files` looked for under the data root ("": embedded).

    `ordered`: each owner's rows are in the order of their recording. `stride`: samples from the beginning of one
    row to that of the owner's next, where rows are windows of one signal (None: no row shares a sample with another).
    `reader`: the function that reads it, as `package.module:function` (fedge.data.known).
    `num_classes`: of another `task` than classes, the number of its labels or numbers.
    """

    name: str
    title: str
    shape: tuple[int, int, int]
    num_classes: int
    size: int
    train_count: int
    people: int | None = None
    files: str = ""
    ordered: bool = False
    stride: int | None = None
    reader: str = ""
    task: Task = "classes"
