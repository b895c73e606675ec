"""A stream without a scenario: made-up rows of one client in a shard, and settings that are written by hand."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedge.data.shard import Shard
from fedge.data.stream.arrivals import PoissonArrivals
from fedge.data.stream.stream import Stream


@dataclass
class Choice:
    """As `[data.stream]`, with its defaults."""

    order: str = "iid"
    stc: int | None = None
    class_every_h: float = 1.0
    label_delay_h: float = 0.0
    labelled: float = 1.0
    holdout: float = 0.2
    drift: list[Any] = field(default_factory=list)


@dataclass
class Drift:
    """As `[[data.stream.drift]]`."""

    what: str = "corruption"
    how: str = "noise"
    kind: str = "sudden"
    at_h: float = 2.0
    width_h: float | None = None
    staggered_h: float = 0.0
    severity: int = 3


def shard(rows: int = 80, classes: int = 4, shape: tuple[int, int, int] = (1, 6, 6)) -> Shard:
    """Rows whose label is their number modulo the classes, as bytes."""
    empty = Shard(0, classes, shape, (0.5,) * shape[0], (0.25,) * shape[0], {})
    x = np.random.default_rng(0).integers(0, 256, (rows, *shape), dtype=np.uint8)
    return empty.with_training(x, np.arange(rows) % classes)


def stream(rate: float = 20.0, seed: int = 1, client: int = 0, rows: int = 80, **choice: Any) -> Stream:
    """Intervals of half an hour."""
    return Stream(shard(rows), Choice(**choice), PoissonArrivals(rate, 0.5, seed + client), 0.5, seed, client)
