"""Figures of a program's own in a report: as declared in `[report.figures]`, or they do not leave.

On the wire and in reports.jsonl a figure is called `own.NAME`. Each is one of its declared values, and all that are
declared are in every report: a figure that may be left out would tell more than it is budgeted for.
"""

import math
from collections.abc import Mapping
from typing import Any

from fedge.catalog.names import did_you_mean
from fedge.protocol.status import DeviceFailure, Status
from fedge.scenario.report import Figure

PREFIX = "own."

Figures = Mapping[str, Figure]


def prefixed(own: Mapping[str, float]) -> dict[str, float]:
    """By the names that results show."""
    return {f"{PREFIX}{name}": value for name, value in own.items()}


def apart(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record's fields of fedge's, and figures by their own names."""
    own = {name.removeprefix(PREFIX): value for name, value in fields.items() if name.startswith(PREFIX)}
    return {name: value for name, value in fields.items() if not name.startswith(PREFIX)}, own


def as_declared(said: Mapping[str, Any], figures: Figures) -> dict[str, float]:
    """What a program says, rounded. DeviceFailure for what is undeclared, missing, no number or out of range."""
    _require_names(said, figures)
    return {name: figure.rounded(_number(name, said[name], figure)) for name, figure in figures.items()}


def require_declared(own: Mapping[str, float], figures: Figures) -> None:
    """DeviceFailure where figures that are about to leave, or have arrived, are not rounded as declared."""
    rounded = as_declared(own, figures)
    for name, value in own.items():
        if rounded[name] != value:
            raise DeviceFailure(Status.BLOCKED_VALUE, f"report figure {name!r} is not rounded to its steps")


def _require_names(said: Mapping[str, Any], figures: Figures) -> None:
    for name in said:
        if name not in figures:
            near = f" ({did_you_mean(name, figures)})" if figures else ""
            raise DeviceFailure(
                Status.BLOCKED_FIELD,
                f"report figure {name!r} is not declared{near}: add [report.figures.{name}] with least, most, steps",
            )
    if missing := [name for name in figures if name not in said]:
        raise DeviceFailure(
            Status.BLOCKED_FIELD,
            f"report figure {missing[0]!r} is declared and was not given: device.report({missing[0]}=...)",
        )


def _number(name: str, value: Any, figure: Figure) -> float:
    """A Python number, or what holds one: a tensor or an array of one entry."""
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise DeviceFailure(
            Status.BLOCKED_TYPE,
            f"report figure {name!r} is a {type(value).__name__}; it should be one number",
        ) from None
    if math.isnan(number) or not figure.least <= number <= figure.most:
        raise DeviceFailure(
            Status.BLOCKED_VALUE,
            f"report figure {name!r} is {number:g}; declared are {figure.least:g} to {figure.most:g}",
        )
    return number
