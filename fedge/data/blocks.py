"""Arrays larger than memory: gone over some megabytes at a time, and let go of.

Pages of a memory-mapped file that were read count as this process's memory until the system wants them back. What
has been gone over is therefore handed back at once: memory does not grow with the file.
"""

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedge.progress import advance

BLOCK_BYTES = 1 << 26
_MOST_ROWS = 4096  # gathered at a time: each may lie in pages of its own


def blocks(array: NDArray[Any], block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, NDArray[Any]]]:
    """(its first row's number, rows in order) of a block, a view; one block where `block_bytes` hold all."""
    step = max(1, block_bytes // row_bytes(array))
    for start in range(0, len(array), step):
        advance(start, len(array))
        yield start, array[start : start + step]
        release(array)


def gathered(
    array: NDArray[Any], rows_N: NDArray[np.int64], block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, NDArray[Any]]]:
    """(place in `rows_N` of the first, copies of these rows of `array`) in the order of `rows_N`."""
    step = min(_MOST_ROWS, max(1, block_bytes // row_bytes(array)))
    for start in range(0, len(rows_N), step):
        advance(start, len(rows_N))
        yield start, array[rows_N[start : start + step]]
        release(array)


def row_bytes(array: NDArray[Any]) -> int:
    """Of one row of [N, ...], at least 1."""
    return max(1, array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64)))


def release(array: NDArray[Any]) -> None:
    """Hand the pages of a memory-mapped array back; nothing is lost, and any other array is left alone."""
    mapped = getattr(array, "_mmap", None)  # numpy.memmap's own name for what it maps, since 2007
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
