"""MLflow: one run per run of fedge, in the experiment "fedge" unless MLFLOW_EXPERIMENT_NAME says another.

A study is a run too, the parent of its cells'. Where it is kept is MLflow's own setting (MLFLOW_TRACKING_URI).
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from fedge.watch.series import round_series, run_series, settings, study_series
from fedge.watch.tracker import ALONE, Place, Tracker

if TYPE_CHECKING:
    from fedge.scenario.schema import Scenario

_MOST_PARAMS = 100  # in one call, by MLflow's own limit
_MOST_CHARACTERS = 500


def _experiment(client: MlflowClient) -> str:
    """Its identifier; made where there is none."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "fedge")
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


class MLflowStudy:
    """The parent of a study's cells; begun once for its folder, and taken up again with it."""

    def __init__(self, name: str, folder: Path) -> None:
        self._client = MlflowClient()
        experiment = _experiment(self._client)
        found = self._client.search_runs([experiment], f"tags.`fedge.study` = '{folder}'", max_results=1)
        if found:
            self.parent: str = found[0].info.run_id
            self._client.update_run(self.parent, status="RUNNING")
        else:
            tags = {"fedge.study": str(folder)}
            self.parent = self._client.create_run(experiment, run_name=name, tags=tags).info.run_id

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """summary: study.json; None where it came to no end."""
        if summary is not None:
            now_ms = round(time.time() * 1000)
            metrics = [Metric(name, value, now_ms, 0) for name, value in study_series(summary).items()]
            self._client.log_batch(self.parent, metrics=metrics)
        self._client.set_terminated(self.parent, "FAILED" if summary is None else "FINISHED")


class MLflow(Tracker):
    """The scenario as parameters, metrics per round, and the run's figures at its end."""

    def __init__(self, folder: Path, place: Place = ALONE) -> None:
        super().__init__(folder, place)
        self._client = MlflowClient()
        self._run = ""  # its identifier

    def run_started(self, scenario: "Scenario") -> None:
        tags = {"fedge.folder": str(self.folder)}
        if self.place.parent:
            tags["mlflow.parentRunId"] = self.place.parent
        name = self.place.name or scenario.name
        self._run = self._client.create_run(_experiment(self._client), run_name=name, tags=tags).info.run_id
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
