"""Faults on purpose: which fault, if any, strikes a client in a round. `[faults]` of a scenario.

A fault is a function of (seed, round, client): a resumed or repeated run meets the same ones. At most one
strikes; those listed by (round, client) go before those drawn by rate, and of several listed the first of `Fault`.

    [faults]
    crash = { rate = 0.05 }                       # in 5 % of all (round, client)
    nan = { at = [[2, 17], [3, 0]] }              # in round 2 at client 17, in round 3 at client 0
"""

import random
from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from fedge.section import Probability, Section
from fedge.seeding import derive_seed


class Fault(StrEnum):
    """What can go wrong on purpose."""

    CRASH = "crash"  # the host's process dies during training
    HANG = "hang"  # the device never answers
    CORRUPT_REPORT = "corrupt_report"  # the report is not of the agreed form
    NAN = "nan"  # training diverges
    OUT_OF_MEMORY = "out_of_memory"  # the device runs out of memory
    LOST_MESSAGE = "lost_message"  # the work is done and the answer never arrives
    DUPLICATE = "duplicate"  # the plan arrives twice


Place = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]]  # round, client


class FaultRule(Section):
    """When one kind strikes: with probability `rate` at each (round, client), and at those listed in `at`."""

    rate: Probability = 0.0
    at: tuple[Place, ...] = ()


class Faults(Section):
    """The section: one rule per kind; without any, nothing goes wrong on purpose."""

    crash: FaultRule = FaultRule()
    hang: FaultRule = FaultRule()
    corrupt_report: FaultRule = FaultRule()
    nan: FaultRule = FaultRule()
    out_of_memory: FaultRule = FaultRule()
    lost_message: FaultRule = FaultRule()
    duplicate: FaultRule = FaultRule()

    def rule(self, fault: Fault) -> FaultRule:
        return getattr(self, fault.value)

    @model_validator(mode="after")
    def _rates_are_shares(self) -> "Faults":
        total = sum(self.rule(fault).rate for fault in Fault)
        if total > 1 + 1e-9:
            raise ValueError(
                f"the rates sum to {total:g}; they are shares of all messages and must sum to at most 1"
            )
        return self


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
