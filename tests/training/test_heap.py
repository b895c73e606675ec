"""Freed memory kept for the next step, and given back at the end."""

import platform
import subprocess
import sys

import pytest

from fedge.training import heap

SCRIPT = """
import resource
from pathlib import Path

import torch

from fedge.training.heap import kept_heap

torch.set_num_threads(1)


def page_faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(7 << 20).add(1)  # twice 29 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


torch.ones(8 << 20)
start_mb = resident_mb()
with kept_heap():
    first, then = page_faults(), page_faults()
    held_mb = resident_mb() - start_mb
print(first, then, held_mb, resident_mb() - start_mb)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the GNU C library's malloc")
def test_pages_are_not_mapped_anew_and_go_back_at_the_end():
    """Training would clear all its pages in every step; or a host would hold on to the memory of every past device."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, then, held_mb, left_mb = map(float, done.stdout.split())
    assert then < 100 <= first, done.stdout
    assert held_mb > 50 and left_mb < 10, done.stdout


def test_another_c_library_is_left_alone(monkeypatch):
    """On Alpine or macOS no device could train."""
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    heap._glibc.cache_clear()
    try:
        with heap.kept_heap():
            assert heap._glibc() is None
    finally:
        heap._glibc.cache_clear()
