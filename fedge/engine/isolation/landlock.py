"""Landlock: a thread of Linux gives up all files but some, for good, for itself and for what it starts.

Three system calls (man 7 landlock), which Python does not wrap. Root is bound by it like anybody.
"""

import ctypes
import os
import stat
from collections.abc import Iterable

LEAST_ABI = 3  # Linux 6.2: before it, any file could still be truncated

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all processors
_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_TRUNCATE = 1 << 14
_FS_RIGHTS = {3: 15, 4: 15}  # rights that there are, by ABI; 16 since ABI 5
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | 1 << 15
_NET_RIGHTS, _SCOPES = 0b11, 0b11  # bind and connect TCP; abstract UNIX sockets and signals

_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _TRUNCATE | _REMOVE_FILE | _REMOVE_DIR | _MAKE_REG | _MAKE_DIR


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The version of Landlock that this kernel speaks; 0: none."""
    return max(0, int(_libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), _VERSION)))


def allow_only(read: Iterable[str], write: Iterable[str]) -> None:
    """Give up all files but these, running any program, TCP, and signals and abstract sockets to the outside.

    Paths that are not there are passed over. For the calling thread and what it starts: call it where there is no
    other. Needs no_new_privs. OSError where the kernel refuses.
    """
    version = abi()
    size = 8 if version < 4 else 16 if version < 6 else 24  # of what this kernel knows of the structure
    attributes = _Ruleset((1 << _FS_RIGHTS.get(version, 16)) - 1, _NET_RIGHTS, _SCOPES)
    ruleset = _called(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0)
    try:
        for paths, rights in ((read, _READ), (write, _WRITE)):
            for path in paths:
                _allow(ruleset, path, rights)
        _called(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        rule = _PathBeneath(rights, descriptor)
        _called(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def _called(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock: {os.strerror(error)}")
    return result
