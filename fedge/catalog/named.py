"""The code that a word of fedge.catalog.names stands for, imported when it is first asked for."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Named(Mapping[str, T], Generic[T]):
    """Word -> code, in the words' order; a word that stands for nothing ("none") gives None."""

    def __init__(self, references: Mapping[str, str | None]) -> None:
        self._references = references

    def __getitem__(self, word: str) -> T:
        reference = self._references[word]
        if reference is None:
            nothing: T = None  # type: ignore[assignment]  # the mapping's type says whether that can be
            return nothing
        module, _, attribute = reference.partition(":")
        code: T = getattr(importlib.import_module(module), attribute)
        return code

    def __iter__(self) -> Iterator[str]:
        return iter(self._references)

    def __len__(self) -> int:
        return len(self._references)
