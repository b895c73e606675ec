"""The samples of a device whose labels it knows: a share of them, the same in every round."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from fedge.data.shard import Batch
from fedge.training.exits.task import UNLABELLED


def known_labels(count: int, share: float, seed: int) -> np.ndarray:
    """Which of `count` samples have a label [N] bool: the nearest whole number to that share, at random. With the same
    seed those of a smaller share are among those of a larger one."""
    known_N = np.zeros(count, dtype=bool)
    known_N[np.random.default_rng(seed).permutation(count)[: round(share * count)]] = True
    return known_N


def withheld(
    batches: Callable[[Callable[[np.ndarray], None]], Iterator[Batch]],
    known_N: np.ndarray,
    told: Callable[[np.ndarray], None] | None = None,
) -> Iterator[Batch]:
    """Mini-batches with the target -1 where the label is not known. batches: makes them, and tells of each the rows
    that it holds before it comes; told: is told them too."""
    rows = np.empty(0, dtype=np.int64)

    def drawn(rows_B: np.ndarray) -> None:
        nonlocal rows
        rows = rows_B
        if told is not None:
            told(rows_B)

    for x_BCHW, y_B in batches(drawn):
        known_B = torch.from_numpy(known_N[rows]).to(y_B.device)
        yield x_BCHW, torch.where(known_B, y_B.long(), UNLABELLED)
