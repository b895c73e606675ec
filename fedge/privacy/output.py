"""What a device prints while it handles a message stays on the device.

Labels and pictures are printed as easily as losses, by Python or by what it calls. So for the time of a message the
process's standard output and error, at the level of file descriptors, are the device's own `output.log`: neither the
terminal of `fedge run`, nor a notebook, nor a log of Ray's gets a line of it.
"""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

_DESCRIPTORS = (1, 2)  # standard output and error, as C code knows them
_ONE_AT_A_TIME = (
    threading.RLock()
)  # a process has one standard output; reentrant, for a handler that calls another


_shown: ContextVar[bool] = ContextVar("shown", default=False)


@contextmanager
def shown() -> Iterator[None]:
    """Inside, devices print where this process prints: for `fedge try`, where whoever looks on owns the one device."""
    token = _shown.set(True)
    try:
        yield
    finally:
        _shown.reset(token)


@contextmanager
def printing_into(log: Path | None) -> Iterator[None]:
    """All that this process prints inside is appended to `log`, readable by its owner alone; None: it is dropped.

    Where the file cannot be opened it is dropped too. A silent message leaves no file. What a thread prints that
    outlives the message goes where the process prints.
    """
    if _shown.get():
        yield
        return
    with _ONE_AT_A_TIME, ExitStack() as stack:
        descriptor = stack.enter_context(_opened(log))
        stream = stack.enter_context(
            open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        )
        _flush()  # what was printed before is not the device's
        for number in _DESCRIPTORS:
            stack.enter_context(_standing_in(descriptor, number))
        stack.callback(_flush)
        stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(contextlib.redirect_stderr(stream))
        yield


def open_private(path: Path) -> int:
    """A descriptor that appends to `path`, which only its owner may read, even where it was made otherwise."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with contextlib.suppress(OSError):  # a file of somebody else's, or a file system without permissions
        os.fchmod(descriptor, 0o600)
    return descriptor


@contextmanager
def _opened(log: Path | None) -> Iterator[int]:
    """A descriptor to print to; what it made is removed where nothing was printed."""
    made_folder = False
    try:
        if log is None:
            raise OSError
        made_folder = not log.parent.is_dir()
        log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_private(log)
    except OSError:
        log, descriptor = None, os.open(os.devnull, os.O_WRONLY)
    try:
        yield descriptor
    finally:
        empty = os.fstat(descriptor).st_size == 0
        os.close(descriptor)
        with contextlib.suppress(OSError):
            if log is not None and empty:
                log.unlink()
                if made_folder:
                    log.parent.rmdir()


@contextmanager
def _standing_in(descriptor: int, number: int) -> Iterator[None]:
    """`descriptor` in the place of the standard one, which is put back; a process may have none."""
    try:
        own = os.dup(number)
    except OSError:
        yield
        return
    try:
        os.dup2(descriptor, number)
        yield
    finally:
        os.dup2(own, number)
        os.close(own)


def _flush() -> None:
    """Write out what Python and the C library hold back, so that it goes where it was printed to."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with contextlib.suppress(Exception):  # closed, or somebody's own
                stream.flush()
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).fflush(None)
