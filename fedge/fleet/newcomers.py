"""Clients that nobody learns from: `schedule.unseen`.

They take no part in the scenario's rounds. After the last of these there is one round more, in which they and nobody
else do what that round would ask of any device: so they show what the fleet's method brings to a client that comes
later. Who they are is drawn from the world (data.seed), so that every arm of a study has the same.
"""

import random

from fedge.scenario.schema import Scenario
from fedge.seeding import derive_seed


def unseen_clients(scenario: Scenario) -> frozenset[int]:
    """Their numbers; nobody's where `schedule.unseen` is 0."""
    generator = random.Random(derive_seed(scenario.world, "unseen"))
    return frozenset(generator.sample(range(scenario.clients), scenario.unseen))


def taking_part(scenario: Scenario, round: int) -> list[int]:
    """The clients that `round` (from 1) is for, in order of their numbers."""
    unseen = unseen_clients(scenario)
    return [
        client for client in range(scenario.clients) if (client in unseen) == scenario.is_for_unseen(round)
    ]
