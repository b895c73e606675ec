"""How far noise will put a run's figures off, before anything runs; and whether it leaves anything to be told."""

import math
from dataclasses import dataclass

from fedge.privacy.noise.budget import Budget
from fedge.scenario.schema import Scenario

USABLE = 0.02  # standard deviation of a mean accuracy, above which two networks cannot be told apart


@dataclass(frozen=True)
class Expected:
    """sd: of a mean over `clients` of a figure in 0..1, in a round that speaks, by noise alone. enough: how many
    clients bring it to USABLE."""

    clients: int
    rounds: int
    epsilon: float
    delta: float
    local: bool
    sd: float
    enough: int

    @property
    def usable(self) -> bool:
        return self.sd <= USABLE


def expected(scenario: Scenario) -> Expected | None:
    """Where all clients of a round answer; None where no noise is asked for."""
    budget = Budget.of(scenario)
    if budget is None:
        return None
    seen = scenario.clients - scenario.unseen
    clients = min(scenario.selection.clients_per_round or seen, seen)
    one, local = budget.sigma / (2 * budget.levels), scenario.privacy.view == "each"
    sd = one / math.sqrt(clients) if local else one / clients
    enough = math.ceil((one / USABLE) ** 2 if local else one / USABLE)
    return Expected(clients, budget.rounds, budget.epsilon, budget.delta, local, sd, enough)


def noise_told(scenario: Scenario) -> list[str]:
    """For a person: a line, and a second one where the figures would be noise."""
    found = expected(scenario)
    if found is None:
        return []
    rounds = "the last round" if found.rounds == 1 else f"each of the last {found.rounds} rounds"
    place = "in each device" if found.local else "on the sums"
    lines = [
        f"noise {place}, epsilon {found.epsilon:g} at delta {found.delta:g}: in {rounds} a mean over "
        f"{found.clients} clients (accuracy, share hurt) is off by ±{100 * found.sd:.2g} pp (one standard deviation), "
        f"a gain by ±{100 * math.sqrt(2) * found.sd:.2g} pp"
    ]
    if not found.usable:
        instead = ", or noise on the sums (privacy.view = 'sums')" if found.local else ""
        lines.append(
            f"{found.clients} clients are too few for that epsilon: for ±{100 * USABLE:g} pp it takes {found.enough:,} "
            f"clients, a larger privacy.epsilon, fewer rounds that speak{instead}"
        )
    return lines
