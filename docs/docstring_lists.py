"""Griffe extension: in the API reference, lines `name: meaning` of a docstring become a list of parameters.

In the source they are plain text, one line per parameter; Markdown would run such lines together.
"""

import re
from typing import Any

import griffe

LINE = re.compile(r"^(\w+(?:, \w+)*):(?= |$)", re.MULTILINE)


class ParameterLists(griffe.Extension):
    """Rewrites the docstrings of functions and classes; a word that is no parameter is left alone."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        _as_list(func, {parameter.name for parameter in func.parameters})

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        made_by = cls.members.get("__init__")
        names = {parameter.name for parameter in made_by.parameters} if made_by else set()
        _as_list(cls, names | set(cls.members))


def _as_list(documented: griffe.Function | griffe.Class, names: set[str]) -> None:
    if documented.docstring is None:
        return
    lines: list[str] = []
    for line in documented.docstring.value.splitlines():
        named = LINE.match(line)
        if named and set(named[1].split(", ")) <= names:
            if lines and lines[-1].strip() and not lines[-1].startswith(("- ", "    ")):
                lines.append("")
            line = LINE.sub(r"- `\1`:", line)
        lines.append(line)
    documented.docstring.value = "\n".join(lines)
