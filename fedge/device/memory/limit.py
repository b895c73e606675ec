"""A hard limit on a host process's memory, so that a client over its budget fails alone and early.

Linux refuses private memory beyond `RLIMIT_DATA`; the allocator's error becomes a MemoryError. The limit counts
address space rather than pages touched, thread stacks included, and knows nothing of a GPU's memory: it is a fence
for the host's sake, not a measurement. Elsewhere than on Linux there is no such limit and nothing happens.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedge.errors import is_out_of_memory


@contextmanager
def memory_limit(extra_bytes: int) -> Iterator[None]:
    """Let this process take `extra_bytes` more than it holds now; the old limit is put back at the end.

    Raises MemoryError, with a line that says the limit, where the body asks for more.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _data_bytes() + extra_bytes
    ceilings = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([wanted, *ceilings]), hard))
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's CPU allocator raises a RuntimeError
        if not is_out_of_memory(error):
            raise
        raise MemoryError(f"the device's limit of {extra_bytes / 1e6:.0f} MB was reached") from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """What RLIMIT_DATA counts, of this process (man 5 proc: VmData)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmData")
