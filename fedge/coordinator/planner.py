"""Every client's plan of a round: the schedule's, changed for its device class, then by the policy."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedge.coordinator.memory import Memory
from fedge.coordinator.policy import Policy
from fedge.coordinator.schedule import plan_round
from fedge.protocol import RoundPlan
from fedge.scenario.changes import flat
from fedge.scenario.schema import Scenario

Plans = Mapping[int, RoundPlan]


class Planner:
    """`policy` is None where the schedule alone decides. UserError where it does not load."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.policy = Policy.of(scenario)
        self._trainings = {
            device_class.label: scenario.training_of(device_class) for device_class in scenario.fleet
        }

    def plans(self, round: int, clients: Sequence[int], memory: Memory) -> Plans:
        """Client -> plan, in the order of `clients`."""
        by_class = {
            label: plan_round(self._scenario, round, training) for label, training in self._trainings.items()
        }
        plans = {client: by_class[self._label(client)] for client in clients}
        if self.policy is None:
            return plans
        with self.policy.asking():
            return {
                client: self.policy.changed(plan, client, memory.history[client])
                for client, plan in plans.items()
            }

    def lines(self, plans: Plans) -> list[dict[str, Any]]:
        """Lines of plans.jsonl: whom a plan went to, and by dotted key what of it is not the scenario's own.

        With a policy one per client that was asked, without one only where a class has changes of its own.
        """
        lines = []
        usual: dict[int, dict[str, Any]] = {}
        for client, plan in sorted(plans.items()):
            if plan.round not in usual:
                usual[plan.round] = _flat(plan_round(self._scenario, plan.round))
            changes = {
                key: value for key, value in _flat(plan).items() if usual[plan.round].get(key) != value
            }
            if changes or self.policy is not None:
                lines.append({"round": plan.round, "client": client, "device": self._label(client)} | changes)
        return lines

    def _label(self, client: int) -> str:
        return self._scenario.device_class_of(client).label


def _flat(plan: RoundPlan) -> dict[str, Any]:
    return dict(flat(plan.model_dump(mode="json", include={"prune", "regrow", "training"})))
