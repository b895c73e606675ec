"""Code of a user's own that a scenario names: found where it runs, by reference.

    file.py:attribute            the text that travelled with the scenario (Scenario.programs)
    package.module:attribute     what is installed here

A file is executed once per process, in a module of its own, with the modules beside it that it imports; neither the
working directory nor the shell's `sys.path` plays a part.
"""

import functools
import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from fedge.catalog.names import did_you_mean, is_reference
from fedge.catalog.program import Program
from fedge.engine.programs.modules import TravelledModules, installed_only
from fedge.errors import UserError
from fedge.scenario.changes import references_of
from fedge.scenario.schema import Scenario

Programs = Mapping[str, Program]


def resolve(reference: str, programs: Programs, *, key: str, afresh: bool = False) -> Any:
    """What `reference` names. UserError, which begins with the scenario's `key`, where it cannot be had.

    afresh: from a module that nobody else has, executed for this call.
    """
    where, _, attribute = reference.rpartition(":")
    program = programs.get(where)
    try:
        with installed_only():
            execute = _executed.__wrapped__ if afresh else _executed
            module = (
                _with_torchvision(lambda: importlib.import_module(where))
                if program is None
                else execute(where, _frozen(program))
            )
    except (Exception, SystemExit) as error:
        raise UserError(f"{key} is {reference!r}, which does not load: {error_in(where, error)}") from error
    if not hasattr(module, attribute):
        names = sorted(name for name in vars(module) if not name.startswith("_"))
        raise UserError(
            f"{key} is {reference!r}; {where} has no {attribute!r}: {did_you_mean(attribute, names)}"
        )
    return getattr(module, attribute)


def resolve_callable(reference: str, programs: Programs, *, key: str, afresh: bool = False) -> Any:
    """The same for a function or class."""
    found = resolve(reference, programs, key=key, afresh=afresh)
    if not callable(found):
        raise UserError(f"{key} is {reference!r}, a {type(found).__name__}; a function or class is wanted")
    return found


def require_references(scenario: Scenario) -> None:
    """Resolve all that `scenario` names by reference, before the first round. UserError for the first that fails."""
    for training in (scenario.training, *map(scenario.training_of, scenario.fleet)):
        for key, name in references_of(training).items():
            resolve_callable(name, scenario.programs, key=key)
    stream = scenario.data.stream
    if stream is not None and is_reference(stream.keep):
        resolve_callable(stream.keep, scenario.programs, key="data.stream.keep")
    transform = scenario.model.factory.transform
    if is_reference(transform):
        resolve_callable(transform, scenario.programs, key="model.factory.transform")


_Frozen = tuple[str, str, tuple[tuple[str, str], ...], bool]


def _frozen(program: Program) -> _Frozen:
    return program.name, program.source, tuple(sorted(program.files.items())), program.is_package


@functools.lru_cache(maxsize=64)
def _executed(path: str, program: _Frozen) -> ModuleType:
    return _with_torchvision(lambda: _execute(path, *program))


def _execute(
    path: str, name: str, source: str, files: tuple[tuple[str, str], ...], is_package: bool
) -> ModuleType:
    own = {f"{name}/__init__.py": source} if is_package else {}
    travelled = TravelledModules(dict(files) | own)
    travelled.install()
    try:
        if is_package:
            return importlib.import_module(name)
        module = ModuleType(f"fedge_own_{name}_{len(_held)}")
        module.__file__ = path
        _held[module.__name__] = sys.modules[module.__name__] = (
            module  # dataclasses look their module up by name
        )
        exec(compile(source, path, "exec"), module.__dict__)
        return module
    finally:
        travelled.remove()


_held: dict[str, ModuleType] = {}


def _with_torchvision(load: Callable[[], ModuleType]) -> ModuleType:
    """`load`, and again with torchvision mended where that is what failed. (Policies are loaded without torch.)"""
    try:
        return load()
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        compat = importlib.import_module("fedge.torchvision_compat")
        module: ModuleType = compat.with_torchvision(load)
        return module


def error_in(path: str, error: BaseException) -> str:
    """The error in one line, with the line of the user's file that it came from."""
    if isinstance(error, SyntaxError):
        line = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == path), None)
    where = f" on line {line}" if line else ""
    text = f"{type(error).__name__}{where}: {' '.join(str(error).split())[:300]}"
    return f"{text}; install it where the devices run" if isinstance(error, ModuleNotFoundError) else text
