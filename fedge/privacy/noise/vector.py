"""What of a report is noised: a few figures and two histograms, each so that a client moves a sum by `levels` at most.

    accuracy, factory    on the client's test rows, 0..1
    hurt                 0 or 1
    work                 multiply-accumulates against dense training, 0..1
    own.NAME             the scenario's own figures, from least to most
    accuracy, gain       in which bin of each histogram the client is

A figure in 0..1 becomes a whole number from -levels to levels, by chance the one below or above, so that a mean is not
off by the rounding. A client without test rows moves no sum of these: it counts as the middle of each range.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedge.privacy.noise.budget import FIGURES, Budget
from fedge.privacy.sums.layout import HISTOGRAMS, Layout, Vector, one_hot
from fedge.protocol import RoundReport
from fedge.protocol.figures import PREFIX
from fedge.protocol.hurt import is_worse
from fedge.scenario.report import Figure
from fedge.scenario.schema import Scenario

_CHANCE = random.SystemRandom()


@dataclass(frozen=True)
class NoisedLayout:
    """The entries of a vector that comes under noise: figures by `names`, then `bins` per histogram."""

    names: tuple[str, ...]
    bins: int
    levels: int
    figures: dict[str, Figure]

    @classmethod
    def of(cls, scenario: Scenario, budget: Budget) -> "NoisedLayout":
        figures = dict(scenario.report.figures)
        names = (*FIGURES, *(f"{PREFIX}{name}" for name in figures))
        return cls(names, scenario.privacy.bins, budget.levels, figures)

    def __len__(self) -> int:
        return len(self.names) + self.bins * len(HISTOGRAMS)

    def vector(self, report: RoundReport) -> Vector:
        """One client's, in order of the entries, modulo 2**64."""
        said = figures_of(report, self.figures)
        scalars = [self._step(said[name]) if name in said else 0 for name in self.names]
        bins = [self.levels * entry for entry in one_hot(report, self.bins)]
        return np.array([*scalars, *bins], dtype=np.int64).astype(np.uint64)

    def _step(self, share: float) -> int:
        exact = (2 * min(max(share, 0.0), 1.0) - 1) * self.levels
        below = int(np.floor(exact))
        return below + (_CHANCE.random() < exact - below)

    def named(self, total: Sequence[int], clients: int) -> dict[str, float | list[float]]:
        """Means over the `clients` by name, 0..1 but for the noise; of a histogram clients per bin."""
        numbers = np.array(total, dtype=np.uint64).astype(np.int64).astype(float) / self.levels
        found: dict[str, float | list[float]] = {
            name: (number / clients + 1) / 2
            for name, number in zip(self.names, numbers.tolist(), strict=False)
        }
        for place, name in enumerate(HISTOGRAMS):
            start = len(self.names) + place * self.bins
            found[f"{name}_bins"] = numbers[start : start + self.bins].tolist()
        return found


def figures_of(report: RoundReport, figures: dict[str, Figure]) -> dict[str, float]:
    """A report's figures, 0..1; without those that it has none of."""
    said = {"work": report.macs_done / report.macs_dense} if report.macs_dense else {}
    asked = report.test_count * (report.decisions or 1)
    if asked:
        said |= {
            "accuracy": report.test_correct / asked,
            "factory": report.factory_correct / asked,
            "hurt": float(is_worse(report.row())),
        }
    for name, value in report.own.items():
        figure = figures[name]
        said[f"{PREFIX}{name}"] = (value - figure.least) / (figure.most - figure.least)
    return said


def layout_of(scenario: Scenario) -> Layout | NoisedLayout:
    """How a report of the scenario becomes a vector."""
    budget = Budget.of(scenario)
    return Layout.of(scenario) if budget is None else NoisedLayout.of(scenario, budget)


def length_of(scenario: Scenario) -> int:
    """How many entries it has."""
    return len(layout_of(scenario))
