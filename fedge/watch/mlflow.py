"""MLflow: one run per run of fedge, in the experiment "fedge" unless MLFLOW_EXPERIMENT_NAME says another.

Where it is kept is MLflow's own setting (MLFLOW_TRACKING_URI).
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from fedge.watch.series import round_series, run_series, settings
from fedge.watch.tracker import Tracker

if TYPE_CHECKING:
    from fedge.scenario.schema import Scenario

_MOST_PARAMS = 100  # in one call, by MLflow's own limit
_MOST_CHARACTERS = 500


class MLflow(Tracker):
    """The scenario as parameters, metrics per round, and the run's figures at its end."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._client = MlflowClient()
        self._run = ""  # its identifier

    def run_started(self, scenario: "Scenario") -> None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "fedge")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        tags = {"fedge.folder": str(self.folder)}
        self._run = self._client.create_run(experiment, run_name=scenario.name, tags=tags).info.run_id
        flat = settings(scenario.model_dump(mode="json", exclude_none=True, exclude={"programs"}))
        params = [Param(key, value[:_MOST_CHARACTERS]) for key, value in flat.items()]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._run, params=params[start : start + _MOST_PARAMS])

    def round_finished(self, figures: Mapping[str, Any]) -> None:
        self.round = figures["round"]
        self._log(round_series(figures))

    def run_finished(self, summary: Mapping[str, Any]) -> None:
        self._log(run_series(summary))

    def _log(self, series: Mapping[str, float]) -> None:
        now_ms = round(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, self.round) for name, value in series.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, *, finished: bool) -> None:
        if self._run:
            self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")
