"""A policy: what one client is asked to do, decided by what that client has reported, and by nothing else.

    def plan(round, client, history, args):
        return {"prune": round > 1, "training.pruning.level": 0.5}      # and "regrow": True

`history` holds the client's own lines of reports.jsonl up to the round before, whatever their status, without the
seconds that the simulation took: so a resumed run decides alike. What is returned changes the schedule's plan and is
validated as a scenario is. The program runs in the coordinator, where torch and data have no business: importing them
is refused (fedge.coordinator.torch_free).
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedge.catalog.files import policy_path
from fedge.catalog.names import did_you_mean
from fedge.coordinator.torch_free import torch_free
from fedge.errors import UserError
from fedge.protocol import TIMING_FIELDS, RoundPlan
from fedge.references import error_in, resolve_callable
from fedge.scenario.changes import Changes, changed_training, nested, references_of
from fedge.scenario.explaining.sentence import explain
from fedge.scenario.schema import Scenario
from fedge.scenario.section import read_only
from fedge.scenario.training import Training

Row = Mapping[str, Any]


class Policy:
    """The scenario's policy, loaded. UserError where it does not load or has no function `plan`."""

    def __init__(self, scenario: Scenario, named: str) -> None:
        self._scenario = scenario
        self._path = str(policy_path(named))
        self.name = Path(self._path).name
        self._args = read_only(scenario.schedule.args)
        with torch_free():
            self._plan = resolve_callable(
                f"{self._path}:plan", scenario.programs, key="schedule.program", afresh=True
            )
        self._require_signature()

    @classmethod
    def of(cls, scenario: Scenario) -> "Policy | None":
        """None where the schedule's kind alone decides."""
        named = scenario.schedule.named
        return None if named is None else cls(scenario, named)

    def asking(self) -> AbstractContextManager[None]:
        """Enter this around `changed`."""
        return torch_free()

    def changed(self, plan: RoundPlan, client: int, history: Sequence[Row]) -> RoundPlan:
        """The plan as the policy wants it. UserError, in one line, where it raises or returns what cannot be."""
        where = f"{self.name}: round {plan.round}, client {client}"
        try:
            said = self._plan(plan.round, client, tuple(history), self._args)
        except (Exception, SystemExit) as error:
            raise UserError(f"{where}: {error_in(self._path, error)}") from error
        try:
            changes = _plain(said)
            training = self._training(plan.training, changes)
            prune, regrow = _prune(changes, plan, training), _regrow(changes, plan)
        except ValidationError as error:
            raise UserError(f"{where}: {explain(error, Scenario)}") from None
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: {error}") from None
        return plan.model_copy(update={"prune": prune, "regrow": regrow, "training": training})

    def _training(self, before: Training, changes: Changes) -> Training:
        training = changed_training(before, changes.get("training", {}), ("training",))
        self._scenario.require_possible(training)
        for key, name in references_of(training).items():
            path = name.rpartition(":")[0]
            if path.endswith(".py") and path not in self._scenario.programs:
                raise ValueError(
                    f"{key} is {name!r}, whose text did not travel: name it in the scenario, a policy can only choose "
                    "among what is there"
                )
        return training

    def _require_signature(self) -> None:
        try:
            inspect.signature(self._plan).bind(1, 0, (), {})
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{self.name}: plan takes other arguments ({error}): write def plan(round, client, history, args)"
            ) from None


def told(row: Row) -> Row:
    """A line of reports.jsonl as a policy sees it: read-only, without what differs from one equal run to the next."""
    return read_only({key: value for key, value in row.items() if key not in TIMING_FIELDS})


def _plain(said: object) -> Changes:
    """What a policy returned as nested changes; None changes nothing."""
    if said is None:
        return {}
    if not isinstance(said, Mapping):
        raise TypeError(
            f'plan returned {type(said).__name__}; return a dict of changes, as in {{"training.pruning.level": 0.5}}'
        )
    for key in said:
        if not isinstance(key, str):
            raise TypeError(f"plan returned the key {key!r}; keys are texts, as in 'training.pruning.level'")
        if key.partition(".")[0] not in ("prune", "regrow", "training"):
            raise ValueError(f"unknown key {key!r}; {did_you_mean(key, _KEYS)}")
    try:
        json.dumps(dict(said))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"plan returned what is no plain value ({error}): give numbers, texts or lists"
        ) from None
    changes = nested(said)
    if not isinstance(changes.get("training", {}), Mapping):
        raise ValueError(f"training is {changes['training']!r}; it is a section: 'training.pruning.level'")
    return changes


_KEYS = ("prune", "regrow", *(f"training.{name}" for name in Training.model_fields))


def _prune(changes: Changes, plan: RoundPlan, training: Training) -> bool:
    """As the policy says; else as the schedule would have it at the new level, which is 0 where nothing is pruned."""
    said = changes.get("prune")
    if said is None:
        return plan.phase == "retrain" and training.pruning.level != 0
    if not isinstance(said, bool):
        raise TypeError(f"prune is {said!r}; it should be true or false")
    return said and training.pruning.level != 0


def _regrow(changes: Changes, plan: RoundPlan) -> int:
    """The round since which a network must have been cut: this one where the policy says so, else the schedule's."""
    said = changes.get("regrow")
    if said is None:
        return plan.regrow
    if not isinstance(said, bool):
        raise TypeError(f"regrow is {said!r}; it should be true or false")
    return plan.round if said else 0
