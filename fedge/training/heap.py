"""Memory that a training step frees stays with the process, for the next step to take.

By default the GNU C library gives a large tensor's pages back to the kernel when it is freed, and the next one's are
mapped and cleared anew, all maps of all layers in every step: 5 to 15 % of a step (`python -m benchmarks heap`). Here
blocks of up to 32 MB, the most that every version of the library allows, come from the heap, and the heap is given
back when the training ends. Other C libraries are left as they are.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
_MOST_BYTES = 32 << 20
_NEVER = (1 << 31) - 1  # bytes free at the heap's top before they are given back


@contextmanager
def kept_heap() -> Iterator[None]:
    """Inside, freed memory is kept; on leaving it goes back to the kernel.

    The thresholds stay: to put back the defaults would also end their adjusting themselves, and slow the process down.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _MOST_BYTES)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
