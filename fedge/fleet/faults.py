"""Faults on purpose: which fault, if any, strikes a client in a round. `[faults]` of a scenario.

A fault is a function of (seed, round, client): a resumed or repeated run meets the same ones. At most one
strikes; those listed by (round, client) go before those drawn by rate, and of several listed the first of `Fault`.

    [faults]
    crash = { rate = 0.05 }                       # in 5 % of all (round, client)
    nan = { at = [[2, 17], [3, 0]] }              # in round 2 at client 17, in round 3 at client 0
"""

import random

from fedge.scenario.fleet import Fault, Faults
from fedge.seeding import derive_seed


class FaultPlan:
    """Which faults strike in one run."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._seed = seed
        self._rates = [(fault, faults.rule(fault).rate) for fault in Fault if faults.rule(fault).rate]
        self._listed = {place: fault for fault in reversed(Fault) for place in faults.rule(fault).at}

    def fault_for(self, round: int, client: int) -> Fault | None:
        """The fault that strikes `client` in `round`, at every attempt of it; None: none."""
        if listed := self._listed.get((round, client)):
            return listed
        if not self._rates:
            return None
        draw = random.Random(derive_seed(self._seed, client, round, "fault")).random()
        for fault, rate in self._rates:
            if draw < rate:
                return fault
            draw -= rate
        return None
