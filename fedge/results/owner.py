"""One run at a time in a folder of results: whoever holds the lock may write there, everybody else is refused.

The lock is the kernel's (`flock`) on a file in the folder, so it goes with the process that holds it, however that
ends. The file itself is removed at the end, as are folders that were made for it and hold nothing.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedge.errors import UserError

LOCK = ".lock"

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what file systems without locks answer


@contextmanager
def owned(folder: Path, notice: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Hold `folder`, made where it is missing, until the block ends; nothing but the lock file is written.

    UserError where another run holds it, or where it cannot be written. Where the file system knows no locks the
    block runs without one, and `notice` is told.
    """
    made = _make(folder)
    try:
        descriptor = _locked(folder, notice)
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / LOCK).unlink(missing_ok=True)  # still held, so nobody else can be holding it
            os.close(descriptor)
    finally:
        for path in made:
            with suppress(OSError):  # it holds a run by now
                path.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make the folder; those that were missing, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return missing


def _locked(folder: Path, notice: Callable[[str], None]) -> int:
    """An open and locked lock file, as a descriptor. A file that its last owner has just removed is no lock."""
    path = folder / LOCK
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _unwritable(folder, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            raise UserError(
                f"{folder} is in use by another run{f' ({holder})' if holder else ''}: wait until it ends, "
                "or give --out another folder"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise _unwritable(folder, error) from None
            notice(f"{folder}: its file system knows no locks; see that no other run writes there")
            return descriptor
        if _is_at(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _unwritable(folder: Path, error: OSError) -> UserError:
    if isinstance(error, FileExistsError | NotADirectoryError):
        file = next(path for path in (folder, *folder.parents) if path.exists())
        return UserError(f"{file} is a file, so {folder} cannot be a folder; give --out another one")
    return UserError(f"{folder}: cannot be written: {error.strerror}; give --out another folder")
