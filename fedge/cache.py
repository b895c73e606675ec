"""The cache of prepared worlds: what lies there, who uses it, and how it is cleared.

    prepared/NAME/        divided data and a factory model, by content; fedge.prepare fills it
    prepared/.NAME.lock   locked by whoever prepares NAME, or finds it prepared; written then, with the scenario's name
    prepared/.NAME.use    locked, shared, by every process whose devices read NAME

The locks are the kernel's (flock), so they end with the processes that hold them.
"""

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fedge.catalog.names import did_you_mean
from fedge.errors import UserError
from fedge.paths import cache_folder
from fedge.progress import tell


@dataclass(frozen=True)
class Entry:
    """A prepared folder. Times are seconds since 1970."""

    name: str
    folder: Path
    scenario: str | None  # that it was last prepared, or used, for; None: nobody knows
    size_bytes: int
    made_s: float
    used_s: float
    in_use: bool


def prepared_folder() -> Path:
    """Where all of them lie."""
    return cache_folder() / "prepared"


def lock_path(folder: Path) -> Path:
    """Of a prepared folder."""
    return folder.parent / f".{folder.name}.lock"


def _use_path(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.use"


_held: dict[Path, IO[str]] = {}


def hold(folder: Path) -> None:
    """This process reads `folder`, until `let_go` or its end: it is not cleared meanwhile.

    A folder that is not of the cache (one device's own data, on its own node) needs no holding.
    """
    if folder not in _held and lock_path(folder).exists():
        with suppress(OSError):  # a cache that cannot be written cannot be cleared either
            file = open(_use_path(folder), "a", encoding="utf-8")  # noqa: SIM115 - closed by let_go
            fcntl.flock(file, fcntl.LOCK_SH)
            _held[folder] = file


def let_go() -> None:
    """This process reads none of them any more."""
    while _held:
        _held.popitem()[1].close()


def entries() -> list[Entry]:
    """What is prepared, most recently used first."""
    folders = [path for path in _inside() if not path.name.startswith(".")]
    found = []
    for index, folder in enumerate(folders):
        tell("listing", index, len(folders))
        found.append(_entry(folder))
    return sorted(found, key=lambda entry: -entry.used_s)


def _inside() -> list[Path]:
    base = prepared_folder()
    return sorted(path for path in base.iterdir() if path.is_dir()) if base.is_dir() else []


def _entry(folder: Path) -> Entry:
    lock = lock_path(folder)
    made_s = folder.stat().st_mtime
    return Entry(
        name=folder.name,
        folder=folder,
        scenario=_scenario(lock),
        size_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        made_s=made_s,
        used_s=lock.stat().st_mtime if lock.exists() else made_s,
        in_use=not _is_free(folder),
    )


def _scenario(lock: Path) -> str | None:
    with suppress(OSError, ValueError, AttributeError):
        name = json.loads(lock.read_text(encoding="utf-8")).get("scenario")
        return name if isinstance(name, str) else None
    return None


def select(names: Sequence[str] = (), older_than_s: float | None = None) -> list[Entry]:
    """Those of these names (none given: all) that nobody has used for so long.

    UserError for a name that is not there.
    """
    found = entries()
    known = [entry.name for entry in found]
    for name in names:
        if name not in known:
            raise UserError(f"nothing called {name!r} is prepared; {did_you_mean(name, known)}")
    now_s = time.time()
    return [
        entry
        for entry in found
        if (not names or entry.name in names)
        and (older_than_s is None or now_s - entry.used_s > older_than_s)
    ]


def clear(chosen: Sequence[Entry]) -> int:
    """Remove them, and what preparations that were killed have left; the bytes that are free now.

    UserError, before anything is removed, where a run or a preparation uses one of them.
    """
    with ExitStack() as stack:
        for entry in chosen:
            if not stack.enter_context(_locked(entry.folder)):
                raise UserError(
                    f"{entry.name} is in use by a run: wait until that ends, or name those that are to go"
                )
        for index, entry in enumerate(chosen):
            tell("clearing", index, len(chosen))
            shutil.rmtree(entry.folder, ignore_errors=True)
            if entry.folder.exists():
                raise UserError(f"{entry.folder} cannot be removed: is it somebody else's?")
    return sum(entry.size_bytes for entry in chosen) + _clear_partial()


def _clear_partial() -> int:
    """Half-filled folders that nobody fills any more."""
    freed = 0
    for partial in [path for path in _inside() if path.name.startswith(".")]:
        whole = partial.parent / partial.name[1:].rpartition("-")[0]
        with _locked(whole) as free:
            if free:
                freed += sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
                shutil.rmtree(partial, ignore_errors=True)
    return freed


def _is_free(folder: Path) -> bool:
    with _locked(folder) as free:
        return free


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether nobody prepares or reads the folder; while inside, nobody begins to."""
    with ExitStack() as stack:
        free = True
        for path in (lock_path(folder), _use_path(folder)):
            if not path.exists():
                continue
            try:
                file = stack.enter_context(open(path, encoding="utf-8"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                free = False
        yield free


@contextmanager
def preparing(folder: Path, scenario: str, *, usable: Callable[[], bool]) -> Iterator[None]:
    """One preparation of `folder` at a time, over all processes of this machine; for whom it was is noted.

    In a cache that cannot be written nothing changes, so that what is `usable` there is used without a lock.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = open(lock_path(folder), "w")  # noqa: SIM115 - closed below
        _wait_for(lock)
    except OSError as error:
        if usable():
            yield
            return
        raise UserError(
            f"{folder.parent}: the cache cannot be written: {error.strerror}; set FEDGE_CACHE to a folder that can"
        ) from None
    with lock:
        json.dump({"scenario": scenario}, lock)
        lock.flush()
        yield


def _wait_for(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        tell("waiting")
        fcntl.flock(lock, fcntl.LOCK_EX)
