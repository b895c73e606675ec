"""The run that is looked through, in a process of its own: `python -m fedge.audit.watched FOLDER`.

FOLDER holds scenario.json. The process coordinates that scenario's run as `fedge run` does, without torch under Ray. It
writes every answer that comes in to crossed.bin; after the last round, with the grid still open, it says `ready` and
waits until it is told to `go`.
"""

import os
import pickle
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Error, RecordDict

from fedge.console.observer import Observer
from fedge.engine.base import FleetGrid
from fedge.errors import FedgeError
from fedge.launch import run_checked
from fedge.scenario.schema import Scenario

SCENARIO, RUN, CROSSED, READY, GO = "scenario.json", "run", "crossed.bin", "ready", "go"
_LOOK_S = 0.05


class Waiting(Observer):
    """Holds the run at its end until it has been looked through, or until who started it is gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parent = os.getppid()

    def run_finished(self, summary: Mapping[str, Any]) -> None:
        (self._folder / READY).write_text(str(os.getpid()), encoding="utf-8")
        while not (self._folder / GO).exists() and os.getppid() == self._parent:
            time.sleep(_LOOK_S)


def record_answers(path: Path) -> None:
    """Append every answer that reaches this process to a file, as it came."""

    def hears(self: FleetGrid, payload: RecordDict | Error) -> None:
        with open(path, "ab") as file:
            pickle.dump(payload, file)

    FleetGrid.hears = hears  # type: ignore[method-assign]


def main(folder: Path) -> None:
    scenario = Scenario.model_validate_json((folder / SCENARIO).read_text(encoding="utf-8"))
    record_answers(folder / CROSSED)
    try:
        run_checked(scenario, folder / RUN, resume=False, overwrite=True, observer=Waiting(folder))
    except FedgeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
