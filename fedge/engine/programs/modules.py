"""What a client program can import: what travels with it, and what is installed; the same in every process.

A host's working directory, and what the shell or Ray put on `sys.path`, are not looked at: a program would run on one
engine or machine and not on the next. PYTHONPATH counts as installed.
"""

import functools
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType


class TravelledModules(MetaPathFinder, Loader):
    """Imports from texts: path -> source, as the files lay beside the program.

    `install` puts them before everything else that could be imported by these names, `remove` takes them away and puts
    back what was there.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = dict(files)
        self._before: dict[str, ModuleType] = {}

    def install(self) -> None:
        """Serve these modules, also where others of their names have been imported already."""
        self._before = self._take_out()
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Undo `install`; may be called twice."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._take_out()
            sys.modules.update(self._before)

    def _take_out(self) -> dict[str, ModuleType]:
        roots = {path.partition("/")[0].removesuffix(".py") for path in self._files}
        roots = {root for root in roots if root in sys.modules}
        # Thousands of names are not looked at for nothing: in a forked process that would copy the memory they lie in.
        names = [name for name in sys.modules if name.partition(".")[0] in roots] if roots else []
        return {name: sys.modules.pop(name) for name in names}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Importlib's question: is this one of yours? A folder without `__init__.py` is a package as well."""
        stem = name.replace(".", "/")
        for file, is_package in ((f"{stem}/__init__.py", True), (f"{stem}.py", False)):
            if file in self._files:
                return importlib.util.spec_from_loader(name, self, origin=file, is_package=is_package)
        if any(file.startswith(f"{stem}/") for file in self._files):
            return importlib.util.spec_from_loader(name, self, origin=f"{stem}/", is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's text."""
        origin = str(module.__spec__ and module.__spec__.origin)
        exec(compile(self._files.get(origin, ""), origin, "exec"), module.__dict__)

    def get_source(self, name: str) -> str:
        """The text, for the lines of a traceback."""
        spec = self.find_spec(name)
        return self._files.get(str(spec and spec.origin), "")


@contextmanager
def installed_only() -> Iterator[None]:
    """Leave on `sys.path` what is installed and what PYTHONPATH names, for the time of a program's own code."""
    before = list(sys.path)
    sys.path[:] = _installed(tuple(before), os.environ.get("PYTHONPATH", ""))
    try:
        yield
    finally:
        sys.path[:] = before


@functools.lru_cache(maxsize=4)
def _installed(entries: tuple[str, ...], python_path: str) -> list[str]:
    """The entries that stay; "" is the working directory by another name."""
    homes, named = _homes(), _named(python_path)
    inside = tuple(f"{home}{os.sep}" for home in homes)
    paths = {entry: os.path.abspath(entry) for entry in entries if entry}
    return [entry for entry, path in paths.items() if path in homes | named or path.startswith(inside)]


def _homes() -> set[str]:
    """Where Python and packages are installed, zipped or not."""
    paths = sysconfig.get_paths()
    homes = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    version = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    homes |= {str(Path(home).parent / version) for home in (paths["stdlib"], paths["platstdlib"])}
    return homes | set(site.getsitepackages()) | {site.getusersitepackages()}


def _named(python_path: str) -> set[str]:
    """The folders of PYTHONPATH and of the site folders' .pth files (installed from a checkout)."""
    named = {os.path.abspath(entry) for entry in python_path.split(os.pathsep) if entry}
    for home in (*site.getsitepackages(), site.getusersitepackages()):
        for pth in Path(home).glob("*.pth"):
            lines = pth.read_text(encoding="utf-8", errors="replace").splitlines()
            named |= {os.path.abspath(os.path.join(home, line.strip())) for line in lines if _is_path(line)}
    return named


def _is_path(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(("#", "import ", "import\t"))
