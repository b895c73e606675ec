"""The cells of a study: one run each, in a folder that is named by what is run."""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fedge.catalog.datasets import dataset_facts
from fedge.catalog.files import client_path
from fedge.catalog.program import read_programs
from fedge.errors import UserError
from fedge.results.run_folder import SUMMARY
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario
from fedge.study.study import FACTORY, TOLD, Study, as_settings
from fedge.yardsticks.settings import refusal


@dataclass(frozen=True)
class Cell:
    """One run of a study: `arm` (with its point of the grid) in a world, with a seed of the training."""

    arm: str
    world: int
    seed: int
    scenario: Scenario
    yardstick: str | None = None

    @functools.cached_property
    def id(self) -> str:
        """A hash of all that the run's numbers are a function of: neither its name nor where and how it runs."""
        table = self.scenario.model_dump(
            mode="json", exclude={"name": True, "engine": {"kind", "address", "hosts"}}
        )
        table["data"].pop("root", None)
        client = read_programs(client_path(self.scenario.client_program)).as_files("client")
        return _digest([table, client, self.yardstick])

    @property
    def _rows(self) -> list[object]:
        """What says, in every world, who holds which rows."""
        table = self.scenario.data.model_dump(mode="json", exclude={"root", "seed", "tolerance", "stream"})
        return [self.scenario.clients, table]

    @functools.cached_property
    def rows_id(self) -> str:
        """A hash of it: only where it is the same can two arms' clients be paired."""
        return _digest(self._rows)

    @functools.cached_property
    def factory_id(self) -> str:
        """A hash of what, in every world, the factory model is a function of."""
        model = self.scenario.model
        files = {name.rpartition(":")[0] for name in (model.reference, model.factory.transform)}
        texts = {name: asdict(own) for name, own in self.scenario.programs.items() if name in files}
        return _digest([self._rows, model.model_dump(mode="json"), texts])

    def folder(self, out: Path) -> Path:
        return out / "cells" / self.id

    def is_done(self, out: Path) -> bool:
        return (self.folder(out) / SUMMARY).is_file()

    def __str__(self) -> str:
        return f"{self.arm}, world {self.world}, seed {self.seed}"


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def cells_of(study: Study, beside: Path, settings: Sequence[str] = ()) -> list[Cell]:
    """Every cell, arm by arm. Paths in the study are relative to `beside`; `settings` are for every cell.

    Raises UserError, with the arm's name, for an arm that cannot be.
    """
    scenario = study.scenario
    if (beside / scenario).is_file():
        scenario = str(beside / scenario)
    base = load_scenario(scenario)
    task = dataset_facts(base.data.dataset).task
    if study.baseline == TOLD and task != "classes":
        raise UserError(
            f"baseline is {TOLD!r}, and the data's task is {task!r}: no class can be told; take another"
        )
    shared = settings if study.unseen is None else [f"schedule.unseen={study.unseen}", *settings]
    worlds, seeds = study.worlds or (base.world,), study.seeds or (base.seed,)
    found = []
    for arm, changes in study.trials().items():
        try:
            changed = load_scenario(scenario, [*as_settings(changes), *shared], beside=beside)
        except UserError as error:
            raise UserError(f"arm {arm!r}: {error}") from None
        if not changed.privacy.whole_reports:
            raise UserError(
                f"arm {arm!r}: a study pairs single reports client by client, and privacy.view or privacy.epsilon "
                "keeps them from it: leave both out of a study, and run the scenario by itself"
            )
        yardstick = study.yardstick(arm)
        if yardstick and (reason := refusal(yardstick, changed)):
            raise UserError(f"arm {arm!r}: {reason}")
        for world in worlds:
            data = changed.data.model_copy(update={"seed": world})
            for seed in seeds:
                scenario_of_cell = changed.model_copy(update={"data": data, "seed": seed})
                found.append(Cell(arm, world, seed, scenario_of_cell, yardstick))
    _require_pairs(study, found)
    return found


def _require_pairs(study: Study, cells: Sequence[Cell]) -> None:
    """UserError where an arm's clients hold other rows than those of the arm that they are to be paired with."""
    rows = {cell.arm: cell.rows_id for cell in cells}
    base = {arm: study.baseline_of(arm) for arm in rows}
    odd = next((arm for arm, own in rows.items() if rows.get(base[arm], own) != own), None)
    if odd:
        raise UserError(
            f"arm {odd!r} has clients with other rows than the baseline {base[odd]!r} (another data section, or "
            f"number of clients), and gains are client by client: take baseline = {FACTORY!r}, or a study of its own"
        )
