"""Drift: from when on which of a client's frames are of the new kind. What the new kind is stands in stream.py.

    strength a(t), t in hours, a client's start s = at_h + its own draw from [0, staggered_h):
    sudden      0 before s, then 1
    gradual     0 before s, (t - s) / width_h, then 1
    recurring   1 for width_h from s on, 0 for width_h, 1 again ...

A frame at t is drifted with probability a(t), by its own draw: so a gradual drift mixes old and new frames, and none is
half drifted (Gama et al., ACM Computing Surveys 46(4), 2014).
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedge.data.stream import chance
from fedge.seeding import derive_seed


class DriftChoice(Protocol):
    """A scenario's `[[data.stream.drift]]`, as far as it is read here."""

    what: str
    how: str
    kind: str
    at_h: float
    width_h: float | None
    staggered_h: float
    severity: int


def start_h(drift: DriftChoice, seed: int) -> float:
    """When it begins for the client of that seed."""
    own = np.random.default_rng(derive_seed(seed, "stagger")).random()
    return drift.at_h + drift.staggered_h * float(own)


def strength(drift: DriftChoice, start_h: float, time_h: NDArray[np.float64]) -> NDArray[np.float64]:
    """a(t), 0..1, at each of the hours."""
    since_F = time_h - start_h
    width_h = drift.width_h or 1.0
    if drift.kind == "gradual":
        return np.clip(since_F / width_h, 0.0, 1.0)
    on_F = since_F >= 0
    if drift.kind == "recurring":
        on_F &= np.floor(since_F / width_h) % 2 == 0
    return on_F.astype(np.float64)


def drifted(
    drift: DriftChoice, seed: int, number_F: NDArray[np.int64], time_h: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which frames are of the new kind [F], by frame number and hour."""
    strength_F = strength(drift, start_h(drift, seed), time_h)
    mixed: NDArray[np.bool_] = chance.shares(derive_seed(seed, "mixed"), number_F) < strength_F
    return mixed


def swapped_classes(num_classes: int, severity: int, seed: int) -> NDArray[np.int64]:
    """The new label of each class [C]: `severity` pairs, as far as there are classes, take each other's."""
    order_C = np.random.default_rng(derive_seed(seed, "pairs")).permutation(num_classes)
    new_C = np.arange(num_classes)
    for pair in range(min(severity, num_classes // 2)):
        one, other = order_C[2 * pair : 2 * pair + 2]
        new_C[one], new_C[other] = other, one
    return new_C
