"""A function or class that somebody defines in a notebook or a module, as a client program: its text, made to travel.

What it uses of its surroundings goes along, where that can be written down: import lines, other functions and classes
that are defined beside it, and plain values (numbers, texts, lists of them). Anything else, a network or an array that
lies in the notebook, is refused: a device has its own, and what is private would travel to every device.
"""

import ast
import builtins
import importlib
import inspect
import symtable
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from fedge.catalog.program import Program, beside
from fedge.errors import UserError

_MOST_CHARACTERS = 10_000  # of a plain value

_HEAD = '''"""A client program, made of {name} by fedge.run(..., client={name})."""

from flwr.clientapp import ClientApp as _ClientApp

from fedge.device.handler import on_device as _on_device
from fedge.privacy.egress import egress_gate as _egress_gate
'''
_APP = "app = _ClientApp(mods=[_egress_gate])\n"
_FUNCTION = "app.train()(_on_device({name}))\n"
_CLASS = """

@app.train()
@_on_device
def _improve(device, plan):
    return {name}()(device, plan)
"""


def program_of(step: object) -> Program:
    """The client program of `step`: a function of (device, plan) that returns device.report(), or a class of which an
    instance, made anew each round, is called so.

    UserError, in one line, for what is neither, what is closed over, and what uses something that cannot travel.
    """
    if not isinstance(step, FunctionType | type):
        got = "a bound method" if inspect.ismethod(step) else f"a {type(step).__name__}"
        raise UserError(
            f"client is {got}; a function of (device, plan), a class, or a program's path is wanted"
        )
    name = step.__name__
    if name == "<lambda>":
        raise UserError(
            "client is a lambda, whose text cannot be told from the line around it: write it with def"
        )
    _require_signature(step)
    parts = _Parts(step)
    parts.take(step)
    body = [_HEAD.format(name=name), *([parts.imports()] if parts.lines else []), *parts.values, *parts.texts]
    call = _CLASS if isinstance(step, type) else _FUNCTION
    source = "\n\n".join(text.strip("\n") for text in body) + "\n\n\n" + _APP + call.format(name=name)
    return Program(name, source, beside([source], parts.folder))


def _require_signature(step: FunctionType | type) -> None:
    called = step.__call__ if isinstance(step, type) else step
    self = (None,) if isinstance(step, type) else ()
    try:
        if isinstance(step, type):
            inspect.signature(step).bind()
        inspect.signature(called).bind(*self, None, None)
    except (TypeError, ValueError):
        wanted = "made without arguments and called" if isinstance(step, type) else "called"
        raise UserError(f"client {step.__name__!r} is {wanted} with (device, plan), and cannot be") from None


class _Parts:
    """What of a module, or of a notebook's cells, goes along with one function."""

    def __init__(self, step: FunctionType | type) -> None:
        self._who, self._module = step.__name__, step.__module__
        module = sys.modules.get(step.__module__)
        self._globals: Mapping[str, Any] = vars(module) if module is not None else {}
        if isinstance(step, FunctionType):
            self._globals = step.__globals__
        file = self._globals.get("__file__")
        self.folder = Path(file).parent if file else Path.cwd()
        self._imported = dict(_import_lines(_texts(module, self._globals)))
        self._taken: set[str] = set()
        self.lines: set[str] = set()
        self.values: list[str] = []
        self.texts: list[str] = []

    def imports(self) -> str:
        """The import lines."""
        return "\n".join(sorted(self.lines))

    def take(self, defined: FunctionType | type) -> None:
        """A function or class, after all that it uses."""
        self._taken.add(defined.__name__)
        self._refuse_closures(defined)
        try:
            text = _text(defined)
        except (OSError, TypeError, SyntaxError):
            raise UserError(
                f"client {self._who!r}: the text of {defined.__name__!r} cannot be read; define it in a file, or in "
                "a notebook's cell"
            ) from None
        for name in sorted(_used(text)):
            self._resolve(name)
        self.texts.append(text)

    def _refuse_closures(self, defined: FunctionType | type) -> None:
        functions = [defined] if isinstance(defined, FunctionType) else vars(defined).values()
        for function in functions:
            code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
            if closed := [name for name in getattr(code, "co_freevars", ()) if name != "__class__"]:
                raise UserError(
                    f"client {self._who!r}: {defined.__name__!r} closes over {closed[0]!r} of the function around it, "
                    "which cannot travel: define it at the top, and pass values as the scenario's client.args"
                )

    def _resolve(self, name: str) -> None:
        if name in self._taken:
            return
        if name not in self._globals:
            if hasattr(builtins, name):
                return
            raise UserError(f"client {self._who!r} uses {name!r}, which is not defined")
        value = self._globals[name]
        if isinstance(value, FunctionType | type) and value.__module__ == self._module:
            self.take(value)
            if value.__name__ != name:
                self.texts.append(f"{name} = {value.__name__}\n")
        elif (line := self._import_line(name, value)) is not None:
            self.lines.add(line)
        elif _is_plain(value):
            self.values.append(f"{name} = {value!r}")
        else:
            raise UserError(
                f"client {self._who!r} uses {name!r}, a {type(value).__name__} that lies outside of it and cannot "
                "travel: make it in the function, or pass numbers and texts as the scenario's client.args"
            )
        self._taken.add(name)

    def _import_line(self, name: str, value: object) -> str | None:
        """How `name` is imported: as its module does, where that still gives `value`; else by what it is."""
        for line in (self._imported.get(name), _line_for(name, value)):
            if line is not None and _gives(line, name) is value:
                return line
        return None


def _line_for(name: str, value: object) -> str | None:
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}"
    module, own = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(module, str) or not str(own).isidentifier() or module == "__main__":
        return None
    return f"from {module} import {own} as {name}"


def _gives(line: str, name: str) -> object:
    """What an import line binds, of modules that are loaded already; itself where it gives nothing."""
    node = ast.parse(line).body[0]
    try:
        if isinstance(node, ast.ImportFrom) and not node.level:
            module = importlib.import_module(node.module or "")
            found = node.names[0].name
            return getattr(module, found) if hasattr(module, found) else sys.modules[f"{node.module}.{found}"]
        if isinstance(node, ast.Import):
            whole = node.names[0].name
            return sys.modules[whole if node.names[0].asname else whole.partition(".")[0]]
    except (ImportError, KeyError):
        pass
    return line


def _texts(module: ModuleType | None, names: Mapping[str, Any]) -> Sequence[str]:
    """The text of a module's file; of a notebook, of its cells so far."""
    cells = names.get("In")
    if names.get("__file__") is None and isinstance(cells, list):
        return [str(cell) for cell in cells]
    try:
        return [inspect.getsource(module)] if module is not None else []
    except (OSError, TypeError):
        return []


def _import_lines(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, a line that imports it alone) for each import outside of functions and classes."""
    for text in texts:
        plain = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("%", "!")))
        try:
            yield from _imports_in(ast.parse(plain).body)
        except SyntaxError:
            continue


def _imports_in(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                one = type(node)(**{**dict(ast.iter_fields(node)), "names": [alias]})
                yield alias.asname or alias.name.partition(".")[0], ast.unparse(one)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _imports_in(list(ast.iter_child_nodes(node)))


def _text(defined: FunctionType | type) -> str:
    """What defines it. OSError where that is gone: Python may then hold another text under the same file name."""
    text = textwrap.dedent(inspect.getsource(defined))
    (first, *_) = ast.parse(text).body
    if getattr(first, "name", None) != defined.__name__:
        raise OSError(f"{defined.__name__!r} is not what stands there")
    return text


def _used(text: str) -> set[str]:
    """Names that a definition takes from outside of it."""
    top = symtable.symtable(text, "<own>", "exec")
    names = {
        symbol.get_name()
        for symbol in top.get_symbols()
        if symbol.is_referenced() and not symbol.is_assigned()
    }
    waiting = list(top.get_children())
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        names |= {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_global() and symbol.is_referenced()
        }
    return names


def _is_plain(value: object) -> bool:
    """Whether it is written down as it is: numbers, texts, truth values, and lists, tuples, sets and tables of them."""
    text = repr(value)
    try:
        return len(text) <= _MOST_CHARACTERS and bool(ast.literal_eval(text) == value)
    except Exception:  # whatever a value of somebody's own does when it is compared
        return False
