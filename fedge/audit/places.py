"""Where a canary may have got to: processes of a run that are nobody's device, their memory, what they wrote."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedge.audit.search import PIECE_BYTES, Hit, Matcher, search, search_file

_PAGE_BYTES = 4096
_REGION = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+) *(.*)")
_SESSION = re.compile(rb"--session[_-]dir=([^\0]+)")
_WORKER = (b"ray::", b"default_worker.py")  # the processes that devices run in
_AGENT = b"Agent"  # ray::DashboardAgent and its like are none
_PROGRAMS = {  # what a process runs -> what it is
    b"/gcs_server": "memory of Ray's key-value store",
    b"/raylet": "memory of Ray's raylet and object store",
}
_MODULES = {  # or a word of its command line
    b"fedge.privacy.sums.helper": "memory of the helper",
    b"/ray/": "memory of Ray's other processes",
    b"ray::": "memory of Ray's other processes",
}


@dataclass(frozen=True)
class Place:
    """What was looked at, how much of it, and what was there. skipped: why not (all of) it, "" where it was."""

    name: str
    size_bytes: int
    hits: tuple[Hit, ...] = ()
    skipped: str = ""

    def as_json(self) -> dict[str, Any]:
        found = [{"canary": hit.canary, "form": hit.form, "within": hit.within} for hit in self.hits]
        return {"place": self.name, "bytes": self.size_bytes, "found": found, "skipped": self.skipped}


def folder_place(name: str, folder: Path, matcher: Matcher, *, without: tuple[Path, ...] = ()) -> Place:
    """All files below a folder but those below `without`."""
    hits: set[Hit] = set()
    size = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(path.is_relative_to(other) for other in without):
            inside, length = search_file(path, matcher)
            name_hits = search(path.name.encode(errors="replace"), matcher)
            hits, size = hits | inside | name_hits, size + length
    return Place(name, size, tuple(sorted(hits)))


def memory_place(name: str, pids: list[int], matcher: Matcher) -> Place:
    """What the processes hold in memory that they can write, or share: not the code and data of their libraries.

    Memory changes while it is read; what lies there for the whole time is seen. A process that may not be read is told.
    """
    hits: set[Hit] = set()
    size, denied = 0, ""
    for pid in pids:
        try:
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                for start, end in regions(pid):
                    for piece in _pieces(memory, start, end, matcher.longest):
                        size += len(piece)
                        hits |= search(piece, matcher, depth=1)
        except OSError as error:
            denied = f"process {pid}: {error.strerror}"
    if not pids:
        denied = "there is no such process"
    return Place(name, size, tuple(sorted(hits)), denied)


def regions(pid: int) -> Iterator[tuple[int, int]]:
    """(first, end) address of each region that may hold what the process made: writable, or shared memory."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        found = _REGION.match(line)
        if not found or found[3][0] != "r" or found[5] in ("[vvar]", "[vsyscall]", "[vdso]"):
            continue
        if found[3][1] == "w":
            yield int(found[1], 16), int(found[2], 16)


def _pieces(memory: Any, start: int, end: int, overlap: int) -> Iterator[bytes]:
    rest = b""
    for place in range(start, end, PIECE_BYTES):
        try:
            memory.seek(place)
            piece = memory.read(min(PIECE_BYTES, end - place))
        except (OSError, ValueError, OverflowError):  # given back meanwhile, or a device's
            rest = b""
            continue
        used = _used(piece)
        if used:
            yield rest + used
        rest = used[-overlap:]


def _used(piece: bytes) -> bytes:
    """Without the pages that hold nothing but zeros: most of a process's memory."""
    whole = len(piece) // _PAGE_BYTES * _PAGE_BYTES
    pages = np.frombuffer(piece, np.uint64, whole // 8).reshape(-1, _PAGE_BYTES // 8)
    return pages[pages.any(axis=1)].tobytes() + piece[whole:]


def rays_side(pid: int) -> tuple[dict[str, list[int]], Path | None]:
    """What a coordinator has started and is no device's: processes by what they are; and Ray's session folder.

    Devices run in Ray's workers, which are left out with all that they have started.
    """
    servers: dict[str, list[int]] = {}
    session = None
    children = _children()
    waiting = children.get(pid, [])
    while waiting:
        child = waiting.pop()
        command = _command(child)
        if _is_worker(command):
            continue
        waiting += children.get(child, [])
        if found := _SESSION.search(command):
            session = Path(found[1].decode())
        if label := _label(command):
            servers.setdefault(label, []).append(child)
    return servers, session


def _is_worker(command: bytes) -> bool:
    """Ray's servers are told how to start a worker, and so have its program's name in their command lines."""
    named = _program(command) is not None or _AGENT in command
    return not named and any(word in command for word in _WORKER)


def _program(command: bytes) -> str | None:
    program = command.partition(b"\0")[0]
    return next((label for end, label in _PROGRAMS.items() if program.endswith(end)), None)


def _label(command: bytes) -> str | None:
    module = next((label for word, label in _MODULES.items() if word in command), None)
    return _program(command) or module


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _children() -> dict[int, list[int]]:
    """Process -> those that it has started, of all that run now."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(folder.name))
    return children
