"""What of a report is summed: whole numbers, each from 0 to a largest one, added up modulo 2**64.

    counts    as they are: samples, multiply-accumulates, right answers
    amounts   in steps of 2**-20, to which reports are rounded: seconds, joules, losses, errors
    shares    of one client, in steps of 2**-32: its accuracy and gain and their squares; 0 or 1: whether it is hurt
    bins      one client is in one bin of each histogram: of accuracy from 0 to 1, of gain from -1 to 1

Nothing but exact arithmetic on one report, so that a sum of vectors says what a sum over reports would. A value above
its largest is cut to it, and that is as large that no fleet's sum reaches 2**64.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedge.protocol import RoundReport
from fedge.protocol.figures import PREFIX
from fedge.protocol.hurt import is_beyond_chance, is_worse
from fedge.protocol.report import STREAM_FIELDS
from fedge.scenario.report import Figure
from fedge.scenario.schema import Scenario

MODULUS = 1 << 64
STEP = 1 << 20  # of amounts: so many to 1
SHARE = 1 << 32  # of shares: so many to 1

COUNTS = (
    "samples_seen", "samples_kept", "macs_done", "macs_dense", "macs_filter", "parameters", "parameters_dense",
    "test_count", "test_correct", "factory_correct", "validation_count", "validation_correct",
)  # fmt: skip
AMOUNTS = ("time_s", "energy_j", "train_loss", "error", "factory_error")
SHARES = ("accuracy", "accuracy_squared", "factory", "told", "gain_squared", "validation")
FLAGS = (
    "answered", "tested", "could_be_told", "validated", "told_loss", "told_error", "hurt", "hurt_beyond_chance",
)  # fmt: skip
SERVED = ("served_factory", "served_earlier", "served_last")
HISTOGRAMS = ("accuracy", "gain")
_LIMB = 40  # bits of the lower half of bit_operations, which whole would leave no room for a fleet's

Vector = NDArray[np.uint64]  # [entries]
Sums = dict[str, int | list[int]]
"""Name -> sum over the clients; of a histogram `NAME_bins` -> clients per bin."""


@dataclass(frozen=True)
class Layout:
    """The entries of a vector: those of `most`, name -> largest value of one client, then `bins` per histogram."""

    most: dict[str, int]
    bins: int
    figures: dict[str, Figure]

    @classmethod
    def of(cls, scenario: Scenario) -> Self:
        """What is summed in a run of it: the same list on every device and on both servers."""
        figures = dict(scenario.report.figures)
        flags = [*FLAGS, *(SERVED if _serves_others(scenario) else ())]
        room = (MODULUS - 1) // scenario.clients
        most = dict.fromkeys((*COUNTS, *AMOUNTS), room)
        most |= dict.fromkeys(("bit_operations", "bit_operations_high"), min((1 << _LIMB) - 1, room))
        most |= dict.fromkeys(SHARES, min(SHARE, room)) | dict.fromkeys(flags, 1)
        most |= dict.fromkeys(STREAM_FIELDS if scenario.data.stream is not None else (), room)
        for name, figure in figures.items():
            most |= {f"{PREFIX}{name}": figure.steps - 1, f"{PREFIX}{name}.weighted": room}
        return cls(most, scenario.privacy.bins, figures)

    def __len__(self) -> int:
        return len(self.most) + self.bins * len(HISTOGRAMS)

    def vector(self, report: RoundReport) -> Vector:
        """One client's, in order of the entries."""
        said = contribution(report, self.figures)
        scalars = [min(max(0, said.get(name, 0)), most) for name, most in self.most.items()]
        return np.array([*scalars, *one_hot(report, self.bins)], dtype=np.uint64)

    def named(self, total: Sequence[int]) -> Sums:
        """A sum of vectors by the names of its entries."""
        numbers = [int(value) for value in total]
        scalars = dict(zip(self.most, numbers, strict=False))
        high = scalars.pop("bit_operations_high")
        found: Sums = {**scalars, "bit_operations": (high << _LIMB) + scalars["bit_operations"]}
        for place, name in enumerate(HISTOGRAMS):
            start = len(self.most) + place * self.bins
            found[f"{name}_bins"] = numbers[start : start + self.bins]
        return found


def _serves_others(scenario: Scenario) -> bool:
    trainings = [scenario.training, *map(scenario.training_of, scenario.fleet)]
    return any(training.serve != "last" for training in trainings)


def add_up(vectors: Iterable[Vector], length: int) -> Vector:
    """Their sum modulo 2**64; of none, zeros."""
    total = np.zeros(length, dtype=np.uint64)
    for vector in vectors:
        total += vector  # wraps
    return total


def contribution(report: RoundReport, figures: dict[str, Figure]) -> dict[str, int]:
    """What one report adds to each sum, before it is cut to its range."""
    row = report.row()
    said = {name: row[name] for name in (*COUNTS, *STREAM_FIELDS) if row.get(name) is not None}
    said["bit_operations_high"], said["bit_operations"] = divmod(row["bit_operations"], 1 << _LIMB)
    said |= {name: steps(row[name]) for name in ("time_s", "energy_j")}
    said["answered"] = 1
    if "train_loss" in row:
        said |= {"told_loss": 1, "train_loss": steps(row["train_loss"])}
    if report.test_count:
        said |= _tested(row)
    if report.validation_count:
        asked = report.validation_count * (report.decisions or 1)
        said |= {"validated": 1, "validation": _share(report.validation_correct, asked)}
    if report.served is not None:
        kind = "factory" if report.served == 0 else "last" if report.served == report.round else "earlier"
        said[f"served_{kind}"] = 1
    for name, value in report.own.items():
        place = step_of(value, figures[name])
        said |= {f"{PREFIX}{name}": place, f"{PREFIX}{name}.weighted": place * report.test_count}
    return said


def _tested(row: dict[str, Any]) -> dict[str, int]:
    """Of a client with test rows: its accuracy and what that is worth."""
    asked = row["test_count"] * row.get("decisions", 1)
    right, before = row["test_correct"], row["factory_correct"]
    worse = is_worse(row)
    said = {
        "tested": 1,
        "accuracy": _share(right, asked),
        "accuracy_squared": _share(right * right, asked * asked),
        "factory": _share(before, asked),
        "gain_squared": _share((right - before) ** 2, asked * asked),
        "hurt": int(worse),
        "hurt_beyond_chance": int(worse and is_beyond_chance(row)),
    }
    if "told_correct" in row:
        said |= {"could_be_told": 1, "told": _share(row["told_correct"], asked)}
    if "test_error_sum" in row:
        errors = {"error": row["test_error_sum"], "factory_error": row["factory_error_sum"]}
        said |= {name: steps(value / row["test_count"]) for name, value in errors.items()} | {"told_error": 1}
    return said


def one_hot(report: RoundReport, bins: int) -> list[int]:
    """In which bin of each histogram the client is: a 1 among zeros; all zeros without test rows.

    A gain of exactly 0 lies in the first bin of the upper half, so that the lower half is who has lost.
    """
    asked = report.test_count * (report.decisions or 1)
    found = [0] * (bins * len(HISTOGRAMS))
    if asked:
        gained = asked + report.test_correct - report.factory_correct
        for place, (part, whole) in enumerate(((report.test_correct, asked), (gained, 2 * asked))):
            found[place * bins + min(part * bins // whole, bins - 1)] = 1
    return found


def steps(amount: float) -> int:
    """An amount in steps of 2**-20; one that a report holds is a whole number of them."""
    return round(amount * STEP)


def step_of(value: float, figure: Figure) -> int:
    """The place of a figure's value among its steps."""
    return round((value - figure.least) / (figure.most - figure.least) * (figure.steps - 1))


def _share(part: int, whole: int) -> int:
    return (2 * part * SHARE + whole) // (2 * whole)
