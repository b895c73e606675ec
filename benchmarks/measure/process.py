"""Measure in fresh processes, and what a tree of processes takes of memory and processor time."""

import os
import resource
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def in_fresh_process(
    function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None
) -> Any:
    """Call `function` in a new interpreter, so that nothing of an earlier measurement is loaded or warm.

    `environment`: variables that it is started with, beside this process's own.
    """
    with _environment(environment or {}), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def beside(function: Callable[..., None], *arguments: Any) -> Iterator[tuple[Connection, int]]:
    """`function(pipe, *arguments)` in a new process: our end of the pipe, and the process's id.

    The function should end at a None, which is sent on leaving.
    """
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=function, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()  # so that its death is an EOFError here
    try:
        assert process.pid is not None
        yield ours, process.pid
        ours.send(None)
        process.join()
    finally:
        process.kill()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= variables
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def peak_rss_mb() -> float:
    """The most that this process has held in memory so far, in MB of 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def tree_pss_mb() -> float:
    """Memory of this process and its descendants now, shared pages counted once, in MB of 10^6 bytes."""
    return sum(_pss_bytes(process) for process in _descendants(os.getpid())) / 1e6


def tree_cpu_s(without: int) -> float:
    """Processor seconds of this process and its descendants, but for process `without` and its descendants."""
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
