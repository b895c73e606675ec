"""Which of a client's rows are held out: shown when their turn comes, tested on, and never stored.

Rows that stand for themselves are drawn one by one. Windows of one recording overlap with their neighbours, so of those
whole stretches are held out, and the windows that share samples with one are shown to nobody.
"""

import numpy as np
from numpy.typing import NDArray

STRETCH = 5  # windows

STORED, HELD_OUT, BETWEEN = 0, 1, 2


def parts(count: int, share: float, seed: int, *, overlap: int | None = None) -> NDArray[np.int8]:
    """STORED, HELD_OUT or BETWEEN for each of `count` rows [R]; at least one row is stored.

    overlap: how many of its next rows share samples with a row, of rows in the order of recording; None: they have
    none.
    """
    part_R = np.full(count, STORED, np.int8)
    generator = np.random.default_rng(seed)
    if overlap is None:
        part_R[generator.permutation(count)[: min(round(share * count), count - 1)]] = HELD_OUT
        return part_R
    stretches = count // STRETCH
    held_out = generator.permutation(stretches)[: min(round(share * stretches), max(0, stretches - 1))]
    for start in held_out * STRETCH:
        part_R[start : start + STRETCH] = HELD_OUT
    for ahead in range(1, min(overlap, count - 1) + 1):
        part_R[:-ahead][(part_R[:-ahead] == STORED) & (part_R[ahead:] == HELD_OUT)] = BETWEEN
        part_R[ahead:][(part_R[ahead:] == STORED) & (part_R[:-ahead] == HELD_OUT)] = BETWEEN
    return part_R
