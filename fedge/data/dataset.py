"""One data set in arrays, and the statistics that its batches are normalised by.

Legend: N rows, C channels, H height, W width. Pictures stay uint8 (a quarter of the memory) until a batch is made;
`mean` and `std` are per channel, of the training rows on the 0..1 scale.
"""

from dataclasses import dataclass

import numpy as np

from fedge.catalog.facts import Task
from fedge.data.blocks import blocks

_UINT8_BLOCK_BYTES = 1 << 24  # counted as 64-bit numbers: eight times that


@dataclass(frozen=True, eq=False)
class DataSet:
    """`x` [N, C, H, W] uint8 (0..255) or float32; `y` by `task` (fedge.data.targets); `subject` [N] who recorded a row;
    `coarse` [N] CIFAR-100's superclass; None where there is none. The first `train_count` rows are the official
    training split. `ordered` and `stride` as in `DatasetFacts`: a row begins so many samples after the owner's row
    before it, and an owner's rows stand in the order of recording, or in that of `order` [N]. `num_classes`: K, of
    classes, labels or numbers.

    Data of one's own: x is memory-mapped, `classes` are their names, `digest` stands for all that the arrays hold."""

    name: str
    x: np.ndarray
    y: np.ndarray
    num_classes: int
    train_count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    subject: np.ndarray | None = None
    coarse: np.ndarray | None = None
    ordered: bool = False
    stride: int | None = None
    order: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    digest: str = ""
    task: Task = "classes"

    def __len__(self) -> int:
        return len(self.y)

    @property
    def overlap(self) -> int:
        """How many of its owner's next rows share samples with a row: windows of 128, one every 64, make it 1."""
        return 0 if self.stride is None else -(-self.x.shape[-1] // self.stride) - 1

    def in_order(self) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers [N], owner by owner, each one's in the order of recording; and who owns each of them [N]."""
        owner_N = np.zeros(len(self), np.int64) if self.subject is None else self.subject
        row_N = np.lexsort((np.arange(len(self)) if self.order is None else self.order, owner_N))
        return row_N, owner_N[row_N]


def channel_statistics(x_NCHW: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel; uint8 counts as 0..1. Exact for uint8: from its histogram."""
    mean_C, std_C = _of_bytes(x_NCHW) if x_NCHW.dtype == np.uint8 else _of_floats(x_NCHW)
    # a constant channel is centred and left at that
    return tuple(map(float, mean_C)), tuple(float(std) or 1.0 for std in std_C)


def _of_bytes(x_NCHW: np.ndarray) -> tuple[list[float], list[float]]:
    count_CV = np.zeros((x_NCHW.shape[1], 256), np.int64)
    for _, rows_NCHW in blocks(x_NCHW, _UINT8_BLOCK_BYTES):
        for channel, count_V in enumerate(count_CV):
            count_V += np.bincount(rows_NCHW[:, channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    means, stds = [], []
    for count_V in count_CV:
        share = count_V / count_V.sum()
        means.append(float(share @ levels))
        stds.append(float(np.sqrt(share @ (levels - means[-1]) ** 2)))
    return means, stds


def _of_floats(x_NCHW: np.ndarray) -> tuple[list[float], list[float]]:
    """Block by block; the blocks' means and variances are put together by Chan's formula."""
    parts = [
        (
            rows.shape[0],
            [(x.mean(dtype=np.float64), x.std(dtype=np.float64)) for x in np.moveaxis(rows, 1, 0)],
        )
        for _, rows in blocks(x_NCHW)
    ]
    count_P = np.array([count for count, _ in parts], np.float64)
    mean_PC, std_PC = np.moveaxis(np.array([pairs for _, pairs in parts]), 2, 0)
    if len(parts) == 1:
        return mean_PC[0].tolist(), std_PC[0].tolist()
    mean_C = count_P @ mean_PC / count_P.sum()
    variance_C = count_P @ (std_PC**2 + (mean_PC - mean_C) ** 2) / count_P.sum()
    return mean_C.tolist(), np.sqrt(variance_C).tolist()
