"""From a process that sees all to one that sees a `Room`: descriptors, environment, files, calls. No way leads back."""

import ctypes
import os
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedge.engine.isolation import landlock, seccomp
from fedge.engine.isolation.room import Room
from fedge.errors import UserError

_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime")
_FACTS = ("/usr/share/zoneinfo", "/dev/urandom", "/dev/zero", "/sys/devices/system/cpu", "/proc/cpuinfo")
_SINK = "/dev/null"
_KEPT = ("LANG", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "VIRTUAL_ENV", "FEDGE_DEBUG")
_KEPT_FAMILIES = (
    "LC_",
    "PYTHON",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "NUMEXPR_",
    "TORCH_",
    "KMP_",
    "FLWR_",
    "CUBLAS_",
)


def refusal() -> str | None:
    """Why no process can be confined on this machine, in a few words; None where one can."""
    if not seccomp.is_known_here():
        return "it needs Linux on x86-64"
    version = landlock.abi()
    if version < landlock.LEAST_ABI:
        found = f"version {version} of it" if version else "none"
        return f"it needs a kernel with Landlock {landlock.LEAST_ABI} (Linux 6.2 or newer), and this one has {found}"
    return None


def environment() -> dict[str, str]:
    """Of the variables of this process those that libraries need: no keys, no addresses."""
    return {
        name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_FAMILIES)
    }


def confine(room: Room, libraries: Iterable[str], keep: int) -> None:
    """Leave this process the room, the `libraries` to read, and the descriptor `keep`. Call it in a fresh fork.

    It works in the room's home, which is its place for temporary files too. OSError where the kernel refuses.
    """
    _close_all_but(keep)
    os.environ |= {"HOME": room.home, "TMPDIR": room.home}
    tempfile.tempdir = None
    os.chdir(room.home)
    os.open("/proc/self", os.O_PATH)  # holds the place to which the rule below is bound
    seccomp.no_new_privileges()
    _drop_capabilities()
    own = (f"/proc/{os.getpid()}", *_FACTS)
    landlock.allow_only((*libraries, *own, *room.read), (_SINK, *room.write))
    seccomp.install()


def libraries() -> list[str]:
    """What Python, its packages and PYTHONPATH's consist of; piece by piece where these lie among other things."""
    paths = sysconfig.get_paths()
    homes = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    homes |= {*site.getsitepackages(), site.getusersitepackages()}
    homes |= {str(Path(prefix) / "lib") for prefix in (sys.prefix, sys.base_prefix)}
    homes |= {path for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path}
    inside = tuple(f"{home}{os.sep}" for home in homes)
    others = [entry for entry in sys.path if entry and entry not in homes and not entry.startswith(inside)]
    found = [*_SYSTEM, *sorted(homes), *(piece for entry in others for piece in _importable(Path(entry)))]
    found += [place for place in _imported() if not place.startswith(inside)]
    return [path for path in dict.fromkeys(found) if os.path.exists(path)]


def _imported() -> Iterator[str]:
    """Where the packages are that this process has imported, by whatever finder."""
    for name, module in list(sys.modules.items()):
        if "." not in name and name != "__main__":
            places = list(getattr(module, "__path__", None) or ())
            yield from (place for place in map(str, places) if os.path.isabs(place))


def _importable(entry: Path) -> Iterator[str]:
    """Of a folder on sys.path the modules and packages, and nothing that lies beside them: runs, data, ..."""
    if entry.is_file():  # a zip
        yield str(entry)
        return
    for path in entry.iterdir() if entry.is_dir() else ():
        is_package = path.is_dir() and (
            (path / "__init__.py").is_file() or path.suffix in (".dist-info", ".egg-info")
        )
        if is_package or path.suffix in (".py", ".so"):
            yield str(path)


def require_apart(libraries: Iterable[str], private: Iterable[str]) -> None:
    """UserError where a library's folder holds what is some client's: reading the one would be reading the other."""
    for path in private:
        for library in libraries:
            if os.path.commonpath([os.path.realpath(library), os.path.realpath(path)]) == os.path.realpath(
                library
            ):
                raise UserError(
                    f"{path} lies inside {library}, where Python's libraries are that every client reads: put "
                    "results, data and cache elsewhere (--out, FEDGE_CACHE), or set privacy.isolation to 'none'"
                )


def _close_all_but(keep: int) -> None:
    """Standard input, output and error become /dev/null; all others but one are closed."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    most = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, keep)
    os.closerange(keep + 1, most)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def _drop_capabilities() -> None:
    """Root's rights over the machine; of files it keeps those of an owner."""
    header, sets = _Header(0x20080522, 0), (_Sets * 2)()
    if _libc.capset(ctypes.byref(header), ctypes.byref(sets)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"capset: {os.strerror(error)}")
