"""What happens to a fleet from outside: `[availability]`, `[selection]`, `[faults]`. fedge.fleet makes them happen."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedge.scenario.beside import Beside
from fedge.scenario.section import Hour, Positive, Probability, Section

HOUR_S = 3600.0


class Availability(Section):
    """The section. The default is `always` without dropout."""

    kind: Literal["always", "markov", "trace"] = "always"
    share: Annotated[float, Field(gt=0, le=1)] = 0.4  # markov: middle of the day's swing
    swing: Annotated[float, Field(ge=1, le=100)] = 4.0
    peak_h: Hour = 2.0  # time of day with most devices: at night, when they charge
    peak_spread_h: Annotated[float, Field(ge=0, le=12)] = 0.0
    persistence: Annotated[float, Field(ge=0, lt=1)] = 0.5
    tied_to: Literal["nothing", "data"] = "nothing"
    path: Annotated[str, Beside()] | None = None  # trace: the CSV file
    start_h: Hour = 0.0  # time of day of the first round
    round_every_h: Positive = 1.0
    dropout: Probability = 0.0

    @model_validator(mode="after")
    def _a_trace_has_a_file(self) -> "Availability":
        if (self.kind == "trace") != (self.path is not None):
            raise ValueError(
                f"path is {self.path!r} and kind is {self.kind!r}; kind 'trace', and it alone, needs a path"
            )
        return self

    def time_s(self, round: int) -> float:
        """Virtual seconds, since the midnight before the run, at which `round` (from 1) begins."""
        return (self.start_h + (round - 1) * self.round_every_h) * HOUR_S


class Selection(Section):
    """The section `[selection]`. By default everybody is asked and every report counts."""

    clients_per_round: Annotated[int, Field(ge=1)] | None = None  # reports wanted; None: of every candidate
    over_selection: Annotated[float, Field(ge=1, le=10)] = 1.0  # 1.3: ask 130 % of the reports wanted
    quorum: Probability = 0.0  # share of the reports wanted without which a round does not count
    deadline_s: Positive | None = None  # virtual seconds; what comes later is late


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
        rule: FaultRule = getattr(self, fault.value)
        return rule

    @model_validator(mode="after")
    def _rates_are_shares(self) -> "Faults":
        total = sum(self.rule(fault).rate for fault in Fault)
        if total > 1 + 1e-9:
            raise ValueError(
                f"the rates sum to {total:g}; they are shares of all messages and must sum to at most 1"
            )
        return self
