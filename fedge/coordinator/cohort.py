"""Whom a round asks, and whose reports count: availability, selection, faults and deadline, in virtual time.

All of it is a function of (scenario, round) and of the reports themselves, so that a resumed run asks the same devices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedge.coordinator.memory import Memory
from fedge.coordinator.planner import Planner
from fedge.fleet.availability import Presence
from fedge.fleet.faults import FaultPlan
from fedge.fleet.newcomers import taking_part
from fedge.fleet.selection import Closing, close_round, select, wanted_reports
from fedge.protocol import RoundPlan, Status
from fedge.scenario.fleet import Fault, Selection
from fedge.scenario.schema import Scenario

ON_THE_WAY = (Fault.LOST_MESSAGE, Fault.DUPLICATE)  # faults of the messages; a device notices nothing


@dataclass(frozen=True)
class Asked:
    """One round's plans by client, in client order. `fleet`: how many clients the round is for; `lost`: whose reports
    never arrive; `twice`: whose plan does."""

    round: int
    fleet: int
    online: int
    wanted: int
    plans: Mapping[int, RoundPlan]
    lost: frozenset[int]
    twice: frozenset[int]


class Fleet:
    """The scenario's clients as the coordinator sees them."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._presence = Presence(scenario.availability, scenario.seed)
        self._faults = FaultPlan(scenario.faults, scenario.seed)
        self._planner = Planner(scenario)

    def ask(self, round: int, memory: Memory | None = None) -> Asked:
        """Choose among those online. Where availability is tied to data, only the devices know: all are asked.

        memory: what earlier rounds brought; None: there were none. UserError where a policy fails.
        """
        scenario, memory, selection = self._scenario, memory or Memory(), self._selection(round)
        fleet = taking_part(scenario, round)
        online = [client for client in fleet if self._may_be_online(client, round)]
        chosen = select(online, selection, seed=scenario.seed, round=round)
        faults = {client: self._faults.fault_for(round, client) for client in chosen}
        plans = self._planner.plans(round, chosen, memory)
        return Asked(
            round=round,
            fleet=len(fleet),
            online=len(online),
            wanted=wanted_reports(selection, len(online)),
            plans={
                client: self._own(plan, client, faults[client], memory.held.get(client, 0))
                for client, plan in plans.items()
            },
            lost=frozenset(client for client in chosen if faults[client] is Fault.LOST_MESSAGE),
            twice=frozenset(client for client in chosen if faults[client] is Fault.DUPLICATE),
        )

    def sent(self, asked: Asked) -> list[dict[str, Any]]:
        """The round's lines of plans.jsonl."""
        return self._planner.lines(asked.plans)

    @property
    def by_history(self) -> bool:
        """Whether what a client is asked depends on what it has reported."""
        return self._planner.policy is not None

    def close(self, asked: Asked, rows: Sequence[dict[str, Any]]) -> Closing:
        """Decide which of the reports count, and mark the others late in their rows."""
        time_s = {row["client"]: row["time_s"] for row in rows if row["status"] == Status.OK}
        silent = len(rows) - len(time_s)
        closing = close_round(time_s, self._selection(asked.round), wanted=asked.wanted, silent=silent)
        late = set(closing.late)
        for row in rows:
            if row["client"] in late:
                row["status"] = Status.LATE.value
        return closing

    def close_by_word(self, asked: Asked, rows: Sequence[dict[str, Any]]) -> Closing:
        """The same where devices say themselves that they are late, and nobody else knows when they were done.

        Its time_s is the deadline where the round has waited for it, and else 0: the slowest client's is not known.
        """
        there = {row["client"]: 0.0 for row in rows if row["status"] == Status.OK}
        return close_round(
            there, self._selection(asked.round), wanted=asked.wanted, silent=len(rows) - len(there)
        )

    def _selection(self, round: int) -> Selection:
        """The round of the unseen clients is for every one of them, and waits for it."""
        return Selection() if self._scenario.is_for_unseen(round) else self._scenario.selection

    def _may_be_online(self, client: int, round: int) -> bool:
        if self._scenario.is_for_unseen(round):
            return True
        tied_to_data = self._scenario.availability.tied_to == "data"
        return tied_to_data or self._presence.is_online(client, round)

    def _own(self, plan: RoundPlan, client: int, fault: Fault | None, after: int) -> RoundPlan:
        """The plan with what this device must hold, and with what will befall it."""
        dropout = self._presence.dropout_point(client, plan.round)
        if fault in ON_THE_WAY:
            fault = None
        if fault is None and dropout is None and not after:
            return plan
        return plan.model_copy(update={"fault": fault, "dropout": dropout, "after": after})
