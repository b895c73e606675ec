"""Looks for a secret in the figures that were reported: some of its values, one after another, under a plain encoding.

What the gate lets through are numbers, and a few of them may be anybody's. So a match counts only where it is too long
to be one of chance: the secret was drawn at random, so that `n` numbers in a row are its values, under one reading and
from one place on, with a probability of at most p to the n, whatever the numbers are. With `comparisons` made in all,
the chance that any of them matches is at most their product.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedge.audit.canaries import Run
from fedge.protocol.budget import kind_of
from fedge.protocol.report import TIMING_FIELDS, WORDS

Row = Mapping[str, Any]

MOST_CHANCE = 1e-3  # of a whole search, that it finds what is not there
_MOST_IN_A_ROW = 64
_COARSE_BITS, _FINE_BITS = 8, 12  # significant bits that rounded figures keep, and that a match needs
_EXACT_BITS = 52
_LEFT_OUT = {"round", "client", "device", "status", "unseen", *TIMING_FIELDS, *WORDS}


@dataclass(frozen=True, eq=False)
class Reading:
    """A secret's values as numbers, of which `bits` significant ones count. chance: that a number is one of them."""

    canary: str
    name: str
    values: NDArray[np.float64]
    chance: float
    bits: int
    per_value: int  # values of the secret in one number


@dataclass(frozen=True)
class Match:
    """`values` values of a canary, in the figures `where`; what the chance of any match in the whole search is."""

    canary: str
    reading: str
    where: str
    values: int
    chance: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def search_numbers(runs: Sequence[Run], rows: Sequence[Row]) -> tuple[list[Match], int]:
    """Per canary and reading the longest match in the reports `rows` (lines of reports.jsonl), the least likely first;
    and how many comparisons were made."""
    numbers, places = in_a_row(rows)
    readings = [reading for run in whole(runs) for reading in readings_of(run)]
    comparisons = 2 * len(numbers) * sum(len(reading.values) for reading in readings)
    found = []
    for reading in readings:
        least = max(1, math.ceil(math.log(MOST_CHANCE / max(comparisons, 1)) / math.log(reading.chance)))
        length, end = longest(numbers, reading, least)
        if length:
            chance = min(1.0, comparisons * reading.chance**length)
            count = length * reading.per_value
            found.append(Match(reading.canary, reading.name, places[end], count, chance))
    return sorted(found, key=lambda match: match.chance), comparisons


def whole(runs: Sequence[Run]) -> Iterator[Run]:
    """Per canary one run: the lines of a patch one after another."""
    for name in dict.fromkeys(run.canary for run in runs):
        own = [run for run in runs if run.canary == name]
        codes, stored = (np.concatenate([getattr(run, key) for run in own]) for key in ("codes", "stored"))
        scales = {key: np.concatenate([run.scales[key] for run in own]) for key in own[0].scales}
        yield Run(name, codes, own[0].choices, stored, scales)


def longest(numbers: NDArray[np.float64], reading: Reading, least: int) -> tuple[int, int]:
    """How many numbers in a row are values of the reading in a row, forwards or backwards, and the place of the last.

    0, 0 where these are fewer than `least`. numbers: not-a-number is like nothing.
    """
    best = max(_diagonal(numbers, values, reading.bits) for values in (reading.values, reading.values[::-1]))
    return best if best[0] >= least else (0, 0)


def _diagonal(numbers: NDArray[np.float64], values: NDArray[np.float64], bits: int) -> tuple[int, int]:
    with np.errstate(invalid="ignore"):
        equal_NV = np.abs(numbers[:, None] - values[None, :]) <= _half_grain(values, bits)[None, :]
    best, end, alive_NV = 0, 0, equal_NV
    while alive_NV.any() and best < _MOST_IN_A_ROW:
        end = int(np.argmax(alive_NV.any(axis=1))) + best
        best += 1
        if min(alive_NV.shape) < 2:
            break
        alive_NV = alive_NV[:-1, :-1] & equal_NV[best:, best:]
    return best, end


def in_a_row(rows: Sequence[Row]) -> tuple[NDArray[np.float64], list[str]]:
    """The numbers that a program has a say in, with not-a-number between those that do not stand in a row; and where
    each was found. Every report's in their order, then every figure's over a client's rounds."""
    numbers, places = [math.nan], [""]
    over_rounds: dict[str, list[float]] = defaultdict(list)

    def add(where: str, row: Sequence[float]) -> None:
        numbers.extend([*row, math.nan])
        places.extend([where] * (len(row) + 1))

    for row in rows:
        said: list[float] = []
        for field, value in row.items():
            if (
                field not in _LEFT_OUT
                and kind_of(field) == "free"
                and not isinstance(value, str | bool | None)
            ):
                held = [float(number) for number in (value if isinstance(value, list) else [value])]
                said += held
                over_rounds[f"client {row['client']}'s {field} over the rounds"] += held
        add(f"client {row['client']}'s report of round {row['round']}", said)
    for where, series in over_rounds.items():
        add(where, series)
    return np.array(numbers), places


def readings_of(run: Run) -> Iterator[Reading]:
    """One value to a number, on each scale; and several packed into one, as a whole number or a fraction."""
    for scale, values in run.scales.items():
        grain = 2 * float(_half_grain(values, _COARSE_BITS).max())
        within = 1 + math.floor(
            grain / _spacing(run.codes, values)
        )  # of the possible values, near one number
        yield Reading(run.canary, scale, values, within / run.choices, _COARSE_BITS, 1)
    base = 256 if run.choices > 16 else max(2, run.choices)
    least, most = math.ceil(math.log(2**_FINE_BITS, base)), math.floor(math.log(2**48, base))
    for size in range(max(2, min(least, 3)), most + 1):
        if not 2 <= size <= len(run.codes):
            continue
        exact = run.choices**-size
        for order, codes in (("first high", run.codes), ("first low", run.codes[::-1])):
            packed, name = _packed(codes, size, base), f"{size} packed, {order}"
            for start in range(size):  # a number, then the one of the values that follow
                values = packed[start::size]
                yield Reading(run.canary, name, values, exact, _EXACT_BITS, size)
                share = max(exact, 2.0 ** (2 - _FINE_BITS))
                yield Reading(
                    run.canary, f"{name}, as a fraction", values / base**size, share, _FINE_BITS, size
                )


def _half_grain(values: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Half a step of each value's last bit, when so many significant bits of it are kept."""
    half: NDArray[np.float64] = np.ldexp(1.0, np.frexp(values)[1] - bits - 1) * (1 + 1e-9)
    return half


def _spacing(codes: NDArray[np.int64], values: NDArray[np.float64]) -> float:
    """How far apart the values of neighbouring codes are: scales are even."""
    low, high = int(codes.argmin()), int(codes.argmax())
    steps = int(codes[high] - codes[low])
    return abs(float(values[high] - values[low])) / steps if steps else math.inf


def _packed(codes: NDArray[np.int64], size: int, base: int) -> NDArray[np.float64]:
    """[n - size + 1]: every `size` codes in a row as one number of that base."""
    windows = np.lib.stride_tricks.sliding_window_view(codes.astype(np.float64), size)
    powers = np.array([float(base) ** place for place in range(size - 1, -1, -1)])
    packed: NDArray[np.float64] = windows @ powers
    return packed
