"""Ways out, by name: each tries one, and returns True where it got through."""

import ctypes
import subprocess
from collections.abc import Callable
from typing import Any

Facts = dict[str, Any]
WAYS: dict[str, Callable[[Facts], object]] = {}
libc = ctypes.CDLL(None, use_errno=True)


def way(function: Callable[[Facts], object]) -> Callable[[Facts], object]:
    WAYS[function.__name__] = function
    return function


def tried(facts: Facts) -> dict[str, int]:
    """1: it got through."""
    found = {}
    for name, attempt in WAYS.items():
        try:
            found[name] = int(bool(attempt(facts)))
        except (OSError, ImportError, ValueError, subprocess.SubprocessError, RuntimeError, ConnectionError):
            found[name] = 0
    return found


def called(number: int, *arguments: object) -> bool:
    return libc.syscall(ctypes.c_long(number), *arguments) >= 0
