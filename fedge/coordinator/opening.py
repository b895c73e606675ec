"""The run's folder: whether it may take this run, and opening it; anew, or after its last whole round."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedge.coordinator.policy import Policy
from fedge.coordinator.schedule import plan_round
from fedge.errors import UserError
from fedge.privacy.noise.ledger import NAME as LEDGER
from fedge.results.record import Record, refuse_changed_programs, refuse_changed_weights
from fedge.results.run_folder import SCENARIO, SUMMARY, RunFolder, refuse_unusable, rounds_held
from fedge.scenario.file import read_scenario, scenario_toml
from fedge.scenario.schema import Scenario

_FREE = (
    "engine",
    "client",
    "rounds",
    "programs",
)  # no number depends on the first; programs and rounds are looked at by themselves


@dataclass(frozen=True)
class RunRequest:
    """What is to be run, where to, and what may become of a run that is there already.

    programs: path below programs/ -> text, all that will run and is not fedge's own; empty where this process does not
    know it. named: of them, those that the scenario names by reference or as its policy.
    """

    scenario: Scenario
    out: Path
    resume: bool = False
    overwrite: bool = False
    programs: Mapping[str, str] = field(default_factory=dict)
    named: frozenset[str] = frozenset()

    def refuse(self) -> None:
        """Raise UserError where `out` cannot take this run, where an earlier run's results would be lost unasked, or
        where the policy does not load.

        A finished run may be run again, and a run may be resumed on another engine or for more rounds, not with other
        numbers or other programs. Nothing is written.
        """
        if self.resume and self.overwrite:
            raise UserError("--resume goes on with the run in --out, --overwrite drops it; give one of them")
        Policy.of(self.scenario)  # it must load
        refuse_unusable(self.out, resume=self.resume)
        done = rounds_held(self.out)
        if self.overwrite or not (done or self.resume):
            return
        begun = _begun(self.out)
        held = f"{self.out} holds a run (round {done} of {begun.all_rounds})"
        if changed := _changed(begun, self.scenario):
            instead = "resume it with the scenario it was begun with" if self.resume else "take --overwrite"
            raise UserError(
                f"{held} of another scenario (it differs in {', '.join(changed)}): {instead}, or another --out"
            )
        if self.resume:
            self._refuse_to_go_on(begun, done, held)
        elif self.scenario.privacy.epsilon is not None:
            raise UserError(
                f"{held}, which has spent its epsilon on these clients: --overwrite begins another run, with a budget "
                "of its own beside what was told already; or take another --out"
            )
        elif not (self.out / SUMMARY).is_file():
            raise UserError(f"{held} that is not at its end: take --resume, --overwrite, or another --out")
        elif begun.rounds != self.scenario.rounds:
            raise UserError(
                f"{held} of another scenario (it differs in rounds): take --resume to go on to round "
                f"{self.scenario.rounds}, --overwrite, or another --out"
            )

    def _refuse_to_go_on(self, begun: Scenario, done: int, held: str) -> None:
        if self.scenario.all_rounds < done:
            raise UserError(
                f"{held}; rounds is {self.scenario.rounds}, and --resume undoes none: at least {done}"
            )
        if begun.is_for_unseen(done) and begun.rounds != self.scenario.rounds:
            raise UserError(
                f"{held}, of which the last is that of clients nobody learns from (schedule.unseen): take --overwrite, "
                "or another --out"
            )
        if done and begun.rounds != self.scenario.rounds and self.scenario.privacy.epsilon is not None:
            raise UserError(
                f"{held}, and its epsilon was divided among its {begun.rounds} rounds: take --overwrite, or another "
                "--out"
            )
        if done and begun.rounds != self.scenario.rounds and _decays_over_the_run(self.scenario):
            raise UserError(
                f"{held}, in which the learning rate falls over all {begun.rounds} rounds; with "
                f"{self.scenario.rounds} its first {done} would have been others: take --overwrite, or another --out "
                "(a decay with per = 'round' may be lengthened)"
            )
        for round in range(1, done + 1):
            if plan_round(begun, round) != plan_round(self.scenario, round):
                raise UserError(
                    f"{held}; with {self.scenario.rounds} rounds its round {round} would have been another: "
                    "take --overwrite, or another --out"
                )
        if done:
            refuse_changed_programs(
                self.out,
                self.programs,
                round=done,
                named=self.named,
                client_key="client.program" if self.scenario.client_args else "client",
            )

    def open(self, environment: Mapping[str, Any]) -> RunFolder:
        """The folder, ready for the next round; what runs, and where, is put on record in it."""
        record = Record(self.programs, environment)
        text = scenario_toml(self.scenario)
        reports = self.scenario.privacy.whole_reports
        if self.resume:
            refuse_changed_weights(self.out, environment)
            return RunFolder.resume(self.out, text, record, reports=reports, keep=(LEDGER,))
        return RunFolder.start(self.out, text, record, reports=reports)


def _begun(out: Path) -> Scenario:
    try:
        return read_scenario(out / SCENARIO)
    except UserError as error:
        raise UserError(
            f"{out} holds a run whose scenario cannot be read ({error}): take --overwrite, or another --out"
        ) from None


def _decays_over_the_run(scenario: Scenario) -> bool:
    trainings = [scenario.training_of(device_class) for device_class in scenario.fleet]
    return any(training.decay.per == "run" for training in trainings)


def _changed(begun: Scenario, asked: Scenario) -> list[str]:
    """The keys in which two scenarios differ, but for those that may."""
    ours, theirs = (scenario.model_dump(mode="json") for scenario in (asked, begun))
    changed = [key for key in ours if key not in _FREE and ours[key] != theirs[key]]
    if asked.client_args != begun.client_args:
        changed.append("client.args")
    if asked.engine.device != begun.engine.device:  # the one key of `engine` that numbers depend on
        changed.append("engine.device")
    return changed
