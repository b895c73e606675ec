"""A program of the user's as it travels: its text, and that of the modules beside it which it imports.

Data that a scenario names by a file travel in the same way, as a "program" whose name keeps its ".json".

A program is one file, or a folder with `__init__.py`. What it imports by name is looked for beside it, as for a script
of Python's; the working directory and the shell's `sys.path` play no part. An import that is made at run time from a
computed name (`importlib.import_module(text)`) is not seen.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedge.catalog.text import read_program

_NEVER_BESIDE = sys.stdlib_module_names | {"fedge", "flwr", "numpy", "ray", "torch", "torchvision"}


@dataclass(frozen=True)
class Program:
    """`name` of the module; `source`, its text; `files`: path -> text of the others, as they lie beside it."""

    name: str
    source: str
    files: dict[str, str]
    is_package: bool = False

    def as_files(self, role: str) -> dict[str, str]:
        """Path -> text, to be kept in a folder from which it runs again; a single file is called by its `role`."""
        if self.is_package:
            return {f"{self.name}/__init__.py": self.source, **self.files}
        if self.name.endswith(".json"):
            return {self.name: self.source}
        own = f"{role}.py" if f"{role}.py" not in self.files else f"{role}_program.py"
        return {own: self.source, **self.files}


def read_programs(path: Path) -> Program:
    """The program at `path` with all that it brings along. UserError where a file cannot be read."""
    path = path.absolute()
    if path.is_dir():
        own = dict(_package(path, path.parent))
        files = own | beside(own.values(), path.parent)
        return Program(path.name, files.pop(f"{path.name}/__init__.py"), files, is_package=True)
    source = read_program(path)
    files = beside([source], path.parent)
    files.pop(path.name, None)  # it imports itself, or a module beside it imports it
    return Program(path.stem, source, files)


def beside(sources: Iterable[str], folder: Path) -> dict[str, str]:
    """Path -> text of the modules in `folder` that `sources` import, and of those that they import in turn."""
    files: dict[str, str] = {}
    waiting = list(sources)
    while waiting:
        for name in sorted(_imported(waiting.pop()) - _NEVER_BESIDE):
            for path, text in _module(name, folder):
                if path not in files:
                    files[path] = text
                    waiting.append(text)
    return files


def _imported(source: str) -> set[str]:
    """Top-level names that are imported anywhere in a text; none where it is no Python: its host will say so."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return set()
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    return {name.partition(".")[0] for name in names}


def _module(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """The file or the whole package of that name in `folder`; nothing where it is not there."""
    if (folder / name).is_dir():
        found = list(_package(folder / name, folder))
        if found or not (folder / f"{name}.py").is_file():
            yield from found
            return
    if (folder / f"{name}.py").is_file():
        yield f"{name}.py", read_program(folder / f"{name}.py")


def _package(package: Path, folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(package.rglob("*.py")):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path.relative_to(folder).as_posix(), read_program(path)
