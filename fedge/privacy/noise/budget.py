"""How much noise a budget of (epsilon, delta) takes, and what so much noise has told.

Unit of privacy: one client, with all that it adds to all figures of all rounds that speak. Two fleets are neighbours
where one of them lacks a client's whole contribution ("add or remove"; that the client answered is no secret: its
messages are seen). With noise in each device, where there is no fleet, neighbours are any two reports of a client.

A figure is a whole number from -`levels` to `levels`, so that a client moves its sum by `levels` at most, and a
histogram by `levels` in one bin. Of two reports of one client a figure differs by twice that, a histogram in two bins.
On each entry comes discrete Gaussian noise of the same `sigma`; all that a client can move, in all rounds, compose.

`sigma` is first found for Gaussian noise on real numbers (Balle and Wang, 2018), whose sum of entries and rounds is one
Gaussian. Then the discrete one's own privacy loss distribution is held against the budget (dp-accounting, pessimistic).
"""

import functools
import importlib.util
import math
from dataclasses import dataclass, replace
from typing import Any

from fedge.errors import UserError
from fedge.scenario.schema import Scenario

_LATTICE = (
    2000  # sigma in whole steps, about: fine enough to be a Gaussian's, coarse enough to be added up exactly
)
_GRAIN = 5e-4  # of the account, in losses of one entry at one sigma
_MARGIN = 1.0005  # over the Gaussian on real numbers, since the exact account rounds up
FIGURES = ("accuracy", "factory", "hurt", "work")
HISTOGRAMS = 2  # of accuracy and of gain


@dataclass(frozen=True)
class Budget:
    """How a run's figures are noised. levels: of half a figure's range. moves: (by how much, how many entries) a client
    moves a round's sums at most. rounds: that speak."""

    epsilon: float
    delta: float
    rounds: int
    moves: tuple[tuple[int, int], ...]
    levels: int
    sigma: float

    @classmethod
    def of(cls, scenario: Scenario) -> "Budget | None":
        """None where the scenario asks for no noise."""
        privacy = scenario.privacy
        if privacy.epsilon is None:
            return None
        figures, rounds = len(FIGURES) + len(scenario.report.figures), privacy.speaks or 1
        local = privacy.view == "each"
        unit = ((2, figures), (1, 2 * HISTOGRAMS)) if local else ((1, figures + HISTOGRAMS),)
        reach = math.sqrt(rounds * sum(count * by * by for by, count in unit))
        ratio = _MARGIN * reach / gaussian_reach(privacy.epsilon, privacy.delta)
        levels = max(1, round(_LATTICE / ratio))
        moves = tuple((by * levels, count) for by, count in unit)
        return cls(privacy.epsilon, privacy.delta, rounds, moves, levels, ratio * levels)

    def kept(self) -> "Budget":
        """The same, with as much noise as the exact account asks for, should that be a little more."""
        budget = self
        while budget.spent(self.rounds) > self.epsilon:
            budget = replace(budget, sigma=1.001 * budget.sigma)
        return budget

    def spent(self, rounds: int) -> float:
        """Epsilon, at `delta`, after so many rounds with one client in all of them. 0 after none."""
        return _spent(self.moves, self.sigma, self.delta, rounds) if rounds else 0.0


def gaussian_reach(epsilon: float, delta: float) -> float:
    """The largest distance, in standard deviations, that Gaussian noise hides within (epsilon, delta)."""
    low, high = 0.0, 1.0
    while gaussian_delta(epsilon, high) < delta:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(epsilon, middle) < delta else (low, middle)
    return low


def gaussian_delta(epsilon: float, reach: float) -> float:
    """The exact delta of Gaussian noise for two inputs `reach` standard deviations apart."""
    if reach == 0:
        return 0.0
    tail = _normal(-reach / 2 - epsilon / reach)
    second = math.exp(epsilon + math.log(tail)) if tail > 0 else 0.0
    return _normal(reach / 2 - epsilon / reach) - second


def _normal(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


@functools.lru_cache(maxsize=64)
def _spent(moves: tuple[tuple[int, int], ...], sigma: float, delta: float, rounds: int) -> float:
    one = _of_one_round(moves, sigma)
    return float(one.self_compose(rounds).get_epsilon_for_delta(delta))


@functools.lru_cache(maxsize=4)
def _of_one_round(moves: tuple[tuple[int, int], ...], sigma: float) -> Any:
    loss = accountant()
    grain = _GRAIN * min(by for by, _ in moves) / sigma
    parts = [
        loss.from_discrete_gaussian_mechanism(
            sigma, sensitivity=by, value_discretization_interval=grain
        ).self_compose(count)
        for by, count in moves
    ]
    return functools.reduce(lambda left, right: left.compose(right), parts)


def accountant() -> Any:
    """dp-accounting's module of privacy loss distributions. UserError where it is not installed."""
    try:
        from dp_accounting.pld import privacy_loss_distribution
    except ImportError as error:
        raise UserError(missing("dp-accounting", error)) from None
    return privacy_loss_distribution


def require_packages() -> None:
    """UserError where one of the packages for noise is not installed; without loading them, which takes seconds."""
    for package, module in (("opendp", "opendp"), ("dp-accounting", "dp_accounting")):
        if importlib.util.find_spec(module) is None:
            raise UserError(missing(package, ImportError(f"No module named {module!r}")))


def missing(package: str, error: ImportError) -> str:
    """What to do where a package of the extra `privacy` is not there."""
    return (
        f'privacy.epsilon takes {package}, which does not load ({error}): pip install "fedge[privacy]", or leave '
        "privacy.epsilon out"
    )
