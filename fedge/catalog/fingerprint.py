"""A fingerprint: what `fedge fingerprint` learnt of a machine, in one JSON file. No torch here.

format          "fedge fingerprint 1"
machine         processor, vector_instructions, torch, threads: what was timed; told, never guessed
predictor       "width" or "trees"; coefficients: its numbers (fedge/training/time/predictor.py)
train_gflops, memory_gbs    the machine in the two terms of fedge/device/budget/clock.py
errors, measured, took_s    how good it is on what it was not fitted to, the timings, the seconds that it took
"""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedge.catalog.text import read_text
from fedge.errors import UserError

FORMAT = "fedge fingerprint 1"
_MACHINE = ("processor", "vector_instructions", "torch", "threads")


@dataclass(frozen=True)
class Fingerprint:
    """A machine's coefficients. `coefficients` are checked where they are used."""

    machine: Mapping[str, Any]
    predictor: str
    coefficients: Mapping[str, Any]
    train_gflops: float
    memory_gbs: float

    def differences(self, here: Mapping[str, Any]) -> list[str]:
        """In words, where the machine that was timed is not the one described; none: it is alike."""
        return [
            f"{name} is {self.machine.get(name)!r} there and {here.get(name)!r} here"
            for name in _MACHINE
            if self.machine.get(name) != here.get(name)
        ]


def read_fingerprint(path: Path) -> str:
    """The text of a fingerprint's file, checked. UserError where it is none."""
    text = read_text(path)
    parse_fingerprint(text, str(path))
    return text


@functools.lru_cache(maxsize=32)
def parse_fingerprint(text: str, where: str = "fingerprint") -> Fingerprint:
    """What a fingerprint's text says; `where` begins the UserError for one that is none."""
    try:
        table = json.loads(text)
    except ValueError:
        raise UserError(f"{where}: no JSON; a file made by fedge fingerprint is wanted") from None
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        said = table.get("format") if isinstance(table, dict) else type(table).__name__
        raise UserError(
            f"{where}: format is {said!r}; it must be {FORMAT!r}: make the file with fedge fingerprint"
        )
    wanted: dict[str, type] = {"machine": dict, "predictor": str, "coefficients": dict}
    for key, kind in wanted.items():
        if not isinstance(table.get(key), kind):
            raise UserError(_lacks(where, key))
    for key in ("train_gflops", "memory_gbs"):
        value = table.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise UserError(_lacks(where, key))
    return Fingerprint(**{key: table[key] for key in Fingerprint.__dataclass_fields__})


def _lacks(where: str, key: str) -> str:
    return f"{where}: {key} is missing or none that fedge fingerprint writes: make the file anew"
