"""A process that runs cells of a study, one after another, with one Ray for all of them.

A line of JSON comes in for each cell, {"folder", "scenario", "yardstick", "watch"}; lines go out for what a person
watches: {"round", "accuracy"}, {"notice"}, and at the cell's end {"done"} or {"error"}. When nobody is left to write to
it, it stops.
"""

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from fedge.console.interrupt import Stopped, interruptible
from fedge.console.observer import Observer
from fedge.errors import FedgeError
from fedge.launch import run_checked
from fedge.results.run_folder import rounds_held
from fedge.scenario.schema import Scenario
from fedge.watch.tracker import Place
from fedge.watch.watchers import watched_by


class Said(Observer):
    """Writes what happens as lines of JSON."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def say(self, **event: Any) -> None:
        print(json.dumps(event), file=self._stream, flush=True)

    def round_finished(self, figures: Mapping[str, Any]) -> None:
        self.say(round=figures["round"], accuracy=figures["accuracy"]["mean"])

    def notice(self, text: str) -> None:
        self.say(notice=text)


def main() -> None:
    # What devices print in this process goes to files of theirs; what anything else prints must not look like events.
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    cells: queue.Queue[str] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_read, args=(sys.stdin, cells, busy), daemon=True).start()
    said = Said(stream)
    try:
        with ExitStack() as stack:
            while line := cells.get():
                busy.set()
                _run(json.loads(line), said, stack)
                busy.clear()
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _read(lines: IO[str], cells: "queue.Queue[str]", busy: threading.Event) -> None:
    """Pass the lines on; whoever wrote them has gone when they end, and what runs then is nobody's."""
    for line in lines:
        cells.put(line)
    cells.put("")
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


def _run(cell: Mapping[str, Any], said: Said, stack: ExitStack) -> None:
    """Run or resume one cell; what is wrong with it is said."""
    scenario, folder = Scenario.model_validate_json(cell["scenario"]), Path(cell["folder"])
    try:
        watch = cell["watch"]
        with (
            watched_by(watch["names"], folder, said, Place(**watch["place"])) as told,
            interruptible(told) as observer,
        ):
            if cell["yardstick"]:
                from fedge.yardsticks.run import run_yardstick

                run_yardstick(cell["yardstick"], scenario, folder, observer)
                said.say(done=True)
                return
            if scenario.engine.kind == "ray":
                _connect(scenario, stack)
            begun = rounds_held(folder) > 0
            run_checked(scenario, folder, resume=begun, overwrite=not begun, observer=observer)
    except FedgeError as error:
        said.say(error=str(error), exit_code=error.exit_code)
    else:
        said.say(done=True)


def _connect(scenario: Scenario, stack: ExitStack) -> None:
    """The Ray that this job's cells share; a cell uses the one that this process is connected to."""
    import ray

    from fedge.engine.cluster import RayCluster

    if not ray.is_initialized():
        stack.enter_context(RayCluster(scenario.engine.address))


if __name__ == "__main__":
    main()
