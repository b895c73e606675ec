"""Weights & Biases: one run per run of fedge, in the project "fedge" unless WANDB_PROJECT says another.

A study's cells are a group of its name.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb

from fedge.watch.series import round_series, run_series, settings
from fedge.watch.tracker import ALONE, Place, Tracker

if TYPE_CHECKING:
    from fedge.scenario.schema import Scenario


class WandB(Tracker):
    """The scenario as configuration, figures per round, and the run's figures as its summary."""

    def __init__(self, folder: Path, place: Place = ALONE) -> None:
        super().__init__(folder, place)
        self._run: Any = None

    def run_started(self, scenario: "Scenario") -> None:
        flat = settings(scenario.model_dump(mode="json", exclude_none=True, exclude={"programs"}))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "fedge"),
            name=self.place.name or scenario.name,
            group=self.place.study or None,
            config=flat,
            dir=str(self.folder),
        )

    def round_finished(self, figures: Mapping[str, Any]) -> None:
        self._run.log(round_series(figures), step=figures["round"])

    def run_finished(self, summary: Mapping[str, Any]) -> None:
        self._run.summary.update(run_series(summary))

    def close(self, *, finished: bool) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if finished else 1)
