"""Rows that stand more than once in a data set, bit for bit.

A row is compared by a 64-bit sum of its bytes first, each of its words times a factor of its own: some ten times as
fast as a digest per row. Where sums are equal the bytes decide.
"""

from collections.abc import Sequence

import numpy as np

from fedge.data.blocks import blocks, gathered, row_bytes
from fedge.data.dividing.parts import ClientRows

_BLOCK_BYTES = 1 << 24  # summed at a time


def repeated_test_rows(
    x_NCHW: np.ndarray, factory: ClientRows, clients: Sequence[ClientRows]
) -> tuple[int, int]:
    """How many test rows of clients equal a row of the factory's, and how many a training row of their own client's."""
    group_N = equal_groups(x_NCHW)
    if group_N is None:
        return 0, 0
    in_factory_N = np.zeros(len(group_N), bool)
    in_factory_N[group_N[factory.train]] = True
    of_factory = of_own = 0
    for rows in clients:
        of_factory += int(in_factory_N[group_N[rows.test]].sum())
        of_own += int(np.isin(group_N[rows.test], group_N[rows.train]).sum())
    return of_factory, of_own


def equal_groups(x_NCHW: np.ndarray) -> np.ndarray | None:
    """The number of its group for each row [N]; equal rows share one. None where no row stands twice."""
    sum_N = _sums(x_NCHW)
    order_N = np.argsort(sum_N, kind="stable")
    twice_N = sum_N[order_N][1:] == sum_N[order_N][:-1]
    if not twice_N.any():
        return None
    first, second = order_N[:-1][twice_N], order_N[1:][twice_N]
    same_M = np.concatenate(
        [
            (_bytes(earlier) == _bytes(later)).all(1)
            for (_, earlier), (_, later) in zip(
                gathered(x_NCHW, first), gathered(x_NCHW, second), strict=True
            )
        ]
    )
    begins_N = np.ones(len(order_N), bool)
    begins_N[1:][twice_N] = ~same_M
    group_N = np.empty(len(order_N), np.int64)
    group_N[order_N] = order_N[begins_N][np.cumsum(begins_N) - 1]
    return group_N


def _bytes(rows_NCHW: np.ndarray) -> np.ndarray:
    """The bytes of each row [N, B]."""
    return np.ascontiguousarray(rows_NCHW).reshape(len(rows_NCHW), -1).view(np.uint8)


def _sums(x_NCHW: np.ndarray) -> np.ndarray:
    row = row_bytes(x_NCHW)
    spare = -row % 8
    words = (row + spare) // 8
    factor_W = np.random.default_rng(0).integers(0, 1 << 63, words, dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    sum_N = np.zeros(len(x_NCHW), np.uint64)
    for start, rows in blocks(x_NCHW, _BLOCK_BYTES):
        piece = _bytes(rows)
        if spare:
            piece = np.pad(piece, ((0, 0), (0, spare)))
        word_NW = np.ascontiguousarray(piece).view(np.uint64)
        mixed_NW = word_NW ^ (word_NW >> np.uint64(29))
        sum_N[start : start + len(rows)] = (mixed_NW * factor_W).sum(1, dtype=np.uint64)
    return sum_N
