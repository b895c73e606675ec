"""Paths in a scenario: relative to the file they stand in; those of `--set` relative to the shell's folder.

A field says that it may hold one: `Annotated[str, Beside()]`, where every text is a path, or `Beside(".py")`, where a
text may be a name as well: a path ends in the suffix, or has a folder in it. `file.py:name` is a reference into a file.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from fedge.catalog.datasets import is_folder

Keys = tuple[str, ...]  # of a field, from the scenario's top; an entry of an array has its array's


@dataclass(frozen=True)
class Beside:
    """Marks a text that may be the path of a file or folder. suffix: of those that may be names too."""

    suffix: str | None = None

    def resolved(self, text: str, folder: Path) -> str:
        """An absolute path where `text` is a path; a name as it is."""
        path, colon, name = self._parts(text)
        if self.suffix is not None and not (path.endswith(self.suffix) or "/" in path):
            return text
        return os.path.abspath(folder / Path(path).expanduser()) + colon + name

    def _parts(self, text: str) -> tuple[str, str, str]:
        """A path and, of a reference, what it names in the file."""
        head, colon, name = text.rpartition(":")
        return (head, colon, name) if self.suffix and head.endswith(self.suffix) else (text, "", "")


class BesideFolder(Beside):
    """Marks a text that is a data set's name or a data folder's path (`fedge.catalog.datasets.is_folder`)."""

    def resolved(self, text: str, folder: Path) -> str:
        """An absolute path where `text` is a folder's; a name as it is."""
        path = Path(text).expanduser()
        return os.path.abspath(folder / path) if is_folder(text, folder) else text


def resolve(value: Any, folder: Path, marks: dict[Keys, Beside], keys: Keys = ()) -> Any:
    """`value`, the part of a scenario's table that stands at `keys`, with its relative paths taken from `folder`."""
    if isinstance(value, dict):
        return {key: resolve(entry, folder, marks, (*keys, key)) for key, entry in value.items()}
    if isinstance(value, list):
        return [resolve(entry, folder, marks, keys) for entry in value]
    if isinstance(value, str) and value and keys in marks:
        return marks[keys].resolved(value, folder)
    return value


def path_fields(model: type[BaseModel], keys: Keys = ()) -> dict[Keys, Beside]:
    """The marked fields of `model` and of the sections in it."""
    found: dict[Keys, Beside] = {}
    for name, field in model.model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Beside)]
        for mark in field.metadata:  # a table that is checked as another section
            if isinstance(model_of := getattr(mark, "model", None), type):
                found |= path_fields(model_of, (*keys, name))
        for part, own in _parts_of(field.annotation, marks):
            if own:
                found[(*keys, name)] = own[0]
            elif isinstance(part, type) and issubclass(part, BaseModel):
                found |= path_fields(part, (*keys, name))
    return found


def _parts_of(annotation: Any, marks: Sequence[Beside]) -> Iterator[tuple[Any, Sequence[Beside]]]:
    """The plain types within an annotation, each with the marks that stand on it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        yield from _parts_of(inner, [*marks, *(mark for mark in metadata if isinstance(mark, Beside))])
    elif origin in (Union, UnionType, tuple, list, dict):
        for part in get_args(annotation):
            yield from _parts_of(part, marks)
    else:
        yield annotation, marks if annotation is str else ()
