"""The hard limit of a host process."""

import subprocess
import sys

import pytest

from fedge.device.memory.limit import memory_limit
from fedge.errors import is_out_of_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is Linux's")

SCRIPT = """
import resource, torch
from fedge.device.memory.limit import memory_limit
before = resource.getrlimit(resource.RLIMIT_DATA)
with memory_limit(200_000_000):
    torch.ones(20_000_000)                         # 80 MB: within
try:
    with memory_limit(200_000_000):
        torch.ones(100_000_000)                    # 400 MB: beyond
except MemoryError as error:
    print(error)
assert resource.getrlimit(resource.RLIMIT_DATA) == before
torch.ones(100_000_000)                            # the process lives on and may have it now
"""


def test_a_client_over_its_budget_fails_alone():
    """One client would take the memory of all, and the kernel would kill the host."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "the device's limit of 200 MB was reached"


def test_other_errors_pass_unchanged():
    """A bug would be reported as a lack of memory."""
    with pytest.raises(RuntimeError, match="shape"), memory_limit(10**9):
        raise RuntimeError("shape mismatch")
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"))
