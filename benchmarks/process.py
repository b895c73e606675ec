"""Measure one thing in one fresh process, and what a tree of processes holds of memory."""

import os
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function` in a new interpreter, so that nothing of an earlier measurement is loaded or warm."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_rss_mb() -> float:
    """The most that this process has held in memory so far, in MB of 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def tree_pss_mb() -> float:
    """What this process and all below it hold now, pages shared among several counted once, in MB."""
    return sum(_pss_bytes(process) for process in _descendants(os.getpid())) / 1e6


def tree_cpu_s(without: int) -> float:
    """Seconds of processor time that this process and all below it have used, those below `without` left out."""
    processes = set(_descendants(os.getpid())) - set(_descendants(without))
    return sum(_cpu_ticks(process) for process in processes) / os.sysconf("SC_CLK_TCK")


def _cpu_ticks(process: int) -> int:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # user and system, counted from the field after the name


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        process = queue.pop()
        found.append(process)
        queue += children.get(process, [])
    return found


def _pss_bytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
