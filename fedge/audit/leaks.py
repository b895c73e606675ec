"""Part (a): the planted run, and the search for canaries in all that is not the device's own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fedge.audit import watched
from fedge.audit.canaries import Planted, plant
from fedge.audit.forms import patterns
from fedge.audit.numbers import search_numbers
from fedge.audit.places import Place, folder_place, memory_place, rays_side
from fedge.audit.search import Matcher, search_file
from fedge.audit.worlds import copied
from fedge.errors import RunError, UserError
from fedge.results.reading import REPORTS
from fedge.results.run_folder import read_reports
from fedge.scenario.schema import Scenario

RUN = watched.RUN
_STDOUT, _STDERR, _CACHE = "stdout.log", "stderr.log", "cache"
_POLL_S = 0.1
_DEVICES = "devices"
_EXIT_S = 60.0


def audit(scenario: Scenario, prepared: Path, folder: Path) -> dict[str, Any]:
    """Plant, run the scenario in a process of its own, look everywhere. `folder`: this part's own.

    `found`: whether a canary is anywhere but with its device. RunError: the run failed, or the search does not even
    find what was planted where it was.
    """
    data, planted = planted_copy(prepared, folder / _CACHE / "prepared", np.random.default_rng())
    matcher = Matcher(patterns(planted.runs))
    _require_found(planted, data, matcher)
    (folder / watched.SCENARIO).write_text(scenario.model_dump_json(exclude_none=True), encoding="utf-8")
    with _running(folder) as process:
        places = _memory(scenario, process.pid, matcher)
    places += _files(folder, planted.client, matcher)
    reports = (
        read_reports(folder / RUN) if (folder / RUN / REPORTS).is_file() else []
    )  # none where sums are heard
    own = [row for row in reports if row["client"] == planted.client]
    matches, comparisons = search_numbers(planted.runs, own)
    return {
        "client": planted.client,
        "planted": list(planted.names),
        "rounds": scenario.rounds,
        "engine": scenario.engine.kind,
        "found": any(place.hits for place in places) or bool(matches),
        "places": [place.as_json() for place in places],
        "figures": {
            "reports": len(own),
            "comparisons": comparisons,
            "found": [match.as_json() for match in matches],
        },
    }


def planted_copy(prepared: Path, to: Path, chance: np.random.Generator) -> tuple[Path, Planted]:
    """A copy of prepared data below `to`, with canaries in it, and what they are."""
    data = copied(prepared, to / prepared.name)
    return data, plant(data, chance)


def _require_found(planted: Planted, data: Path, matcher: Matcher) -> None:
    """A search that misses what lies open would call every run clean."""
    found = {hit.canary for hit in folder_place("", data / "shards", matcher).hits}
    if missing := set(planted.names) - found:
        raise RunError(f"the audit does not find what it planted ({', '.join(sorted(missing))}): report this")


@contextmanager
def _running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The planted run at its end, before its processes end. RunError where it does not get there."""
    environment = os.environ | {"FEDGE_CACHE": str(folder / _CACHE)}
    command = [sys.executable, "-m", "fedge.audit.watched", str(folder)]
    with open(folder / _STDOUT, "wb") as out, open(folder / _STDERR, "wb") as err:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=err)
        try:
            while not (folder / watched.READY).exists():
                if process.poll() is not None:
                    said = (
                        (folder / _STDERR).read_text(encoding="utf-8", errors="replace").strip().splitlines()
                    )
                    raise RunError(f"the planted run failed: {said[-1] if said else 'it said nothing'}")
                time.sleep(_POLL_S)
            yield process
        finally:
            (folder / watched.GO).touch()
            try:
                process.wait(_EXIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _memory(scenario: Scenario, pid: int, matcher: Matcher) -> list[Place]:
    """Of the coordinator and of what it started, but for the devices' hosts; with Ray's logs."""
    coordinator = "memory of the coordinator"
    servers, session = rays_side(pid)
    if scenario.engine.kind == "inline":
        why = "devices run in the coordinator's own process: engine.kind = 'ray' keeps them apart"
        places = [Place(coordinator, 0, skipped=why)]
    else:
        places = [memory_place(coordinator, [pid], matcher)]
    places += [memory_place(name, pids, matcher) for name, pids in servers.items()]
    if session is not None:
        places.append(folder_place("Ray's logs", session / "logs", matcher))
    return places


def _files(folder: Path, client: int, matcher: Matcher) -> list[Place]:
    run = folder / RUN
    devices = run / _DEVICES
    hits, size = search_file(folder / watched.CROSSED, matcher)
    places = [
        Place("what crossed", size, tuple(sorted(hits))),
        folder_place("results, without devices", run, matcher, without=(devices,)),
        folder_place("other devices' folders", devices, matcher, without=(devices / str(client),)),
    ]
    for name, file in (("standard output", _STDOUT), ("standard error", _STDERR)):
        hits, size = search_file(folder / file, matcher)
        places.append(Place(name, size, tuple(sorted(hits))))
    return places


def require_here(scenario: Scenario) -> None:
    """UserError where the run's processes are not this machine's, so that nobody could look into them."""
    if scenario.engine.kind == "ray" and scenario.engine.address != "local":
        raise UserError(
            f"engine.address is {scenario.engine.address!r}, and an audit looks into its run's processes: take "
            "--set engine.address=local"
        )
