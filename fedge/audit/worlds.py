"""Runs of a scenario on data that the audit has changed: other rows in the clients' shards, the same factory model.

A client's report is a function of its own rows, its seeds and the plan. So reports of clients whose rows were changed
in two runs stand for every mixture of the two, client by client.
"""

import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedge.cache import let_go
from fedge.catalog.files import client_path
from fedge.catalog.program import read_programs
from fedge.console.observer import Observer
from fedge.coordinator.rounds import run_rounds
from fedge.data.shard import SPLITS, Shard, rewrite_shards
from fedge.engine.inline import InlineGrid
from fedge.engine.roster import ClientProgram
from fedge.errors import RunError
from fedge.launch import GATE, FleetRoster, threads_kept
from fedge.results.run_folder import RunFolder, read_reports
from fedge.scenario.file import scenario_toml
from fedge.scenario.fleet import Faults, Selection
from fedge.scenario.privacy import Privacy
from fedge.scenario.schema import Scenario

Row = dict[str, Any]
Part = tuple[NDArray[Any], NDArray[Any]]
Rows = dict[str, Part]
"""One client's rows by part: x [N, C, H, W] and y, as they are stored."""

FEWEST = 4  # clients that guesses need: two to learn from, two to ask about
_OWN = "own"  # of a prepared folder: each client's rows once more


@dataclass(frozen=True)
class World:
    """A run that is to be made: on prepared `data`, results in `out`."""

    scenario: Scenario
    data: Path
    out: Path


def without_fortune(scenario: Scenario, rounds: int) -> Scenario:
    """Everybody is asked, is there, and answers; at most so many rounds, or the least that the schedule can be of."""
    schedule = scenario.schedule.model_copy(update={"unseen": 0.0})
    rounds = min(scenario.rounds, max(rounds, getattr(schedule, "finetune_rounds", 0) + 1))
    speaks = scenario.privacy.speaks
    always = {"kind": "always", "path": None, "dropout": 0.0}
    return scenario.model_copy(
        update={
            "rounds": rounds,
            "energy": scenario.energy.model_copy(update={"start": 1.0}),
            "availability": scenario.availability.model_copy(update=always),
            "faults": Faults(),
            "selection": Selection(),
            "schedule": schedule,
            "privacy": scenario.privacy.model_copy(update={"speaks": speaks and min(speaks, rounds)}),
        }
    )


def reporting(scenario: Scenario) -> Scenario:
    """The same in this process, where every client's report is to be had: the observer's view."""
    engine = scenario.engine.model_copy(update={"kind": "inline"})
    privacy = Privacy(least_count=scenario.privacy.least_count)
    return scenario.model_copy(update={"engine": engine, "privacy": privacy})


def trimmed(scenario: Scenario, clients: int) -> tuple[Scenario, list[int]]:
    """The scenario with so many of its clients, spread over the device classes, and which of its clients they are."""
    clients = min(clients, scenario.clients)
    chosen = [place * scenario.clients // clients for place in range(clients)]
    fleet, first = [], 0
    for each in scenario.fleet:
        count = sum(first <= client < first + each.count for client in chosen)
        first += each.count
        if count:
            fleet.append(each.model_copy(update={"count": count}))
    return scenario.model_copy(update={"fleet": tuple(fleet)}), chosen


def copied(prepared: Path, to: Path) -> Path:
    """A copy of prepared data, to be changed."""
    shutil.copytree(prepared, to, ignore=shutil.ignore_patterns(_OWN, f".{_OWN}-*"))
    return to


def rows_of(prepared: Path, client: int) -> Rows:
    """A client's own rows, to be changed."""
    shard = Shard.open(prepared / "shards", client)
    return {part: shard.arrays(part) for part in SPLITS}


def changed(prepared: Path, clients: Sequence[Rows], to: Path) -> Path:
    """Prepared data with these clients' rows in place of its own; clients are numbered from 0."""
    to.mkdir(parents=True)
    for path in prepared.iterdir():
        if path.is_file() and path.name != "digests.json":
            shutil.copyfile(path, to / path.name)
    parts = [[rows[part] for part in SPLITS] for rows in clients]
    rewrite_shards(prepared / "shards", to / "shards", parts)
    return to


def run(world: World) -> list[Row]:
    """The reports of a run in this process, in order of round and client."""
    scenario = world.scenario
    program = read_programs(client_path(scenario.client_program))
    travelling = ClientProgram(program.name, program.source, GATE, program.files, program.is_package)
    text = scenario.model_dump_json(exclude_none=True)
    config: dict[str, Any] = {"scenario-json": text, "out": str(world.out), "data-path": str(world.data)}
    with threads_kept():
        try:
            with InlineGrid(
                travelling, FleetRoster(scenario), config, threads=scenario.engine.threads
            ) as grid:
                folder = RunFolder.start(world.out, scenario_toml(scenario))
                run_rounds(grid, scenario, folder, Observer())
        finally:
            let_go()
    return read_reports(world.out, timing=False)


def run_all(worlds: Sequence[World], jobs: int | None = None) -> list[list[Row]]:
    """The reports of each, in order. jobs: processes side by side; None: one per core, as many as there are worlds."""
    jobs = min(jobs or len(os.sched_getaffinity(0)), len(worlds))
    if jobs < 2:
        return [run(world) for world in worlds]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        return list(pool.map(run, worlds))


def num_classes(prepared: Path) -> int | None:
    """Of data whose task is classes; None of another task."""
    meta = json.loads((prepared / "shards" / "meta.json").read_text(encoding="utf-8"))
    return int(meta["num_classes"]) if meta.get("task", "classes") == "classes" else None


def complete(runs: Sequence[Sequence[Row]], clients: int) -> list[list[list[Row]]]:
    """Per run and client the reports in order of round, of the clients that answered in every round of every run.

    RunError where these are fewer than FEWEST.
    """
    told = [
        [
            [row for row in rows if row["client"] == client and row["status"] == "ok"]
            for client in range(clients)
        ]
        for rows in runs
    ]
    rounds = max(len(own) for run in told for own in run)
    kept = [client for client in range(clients) if all(len(run[client]) == rounds > 0 for run in told)]
    if len(kept) < FEWEST:
        raise RunError(
            f"{len(kept)} of {clients} clients answered in every run of the audit, and guesses need {FEWEST}: "
            "`fedge run` of this scenario says how the others' rounds ended"
        )
    return [[run[client] for client in kept] for run in told]


def picked(part: Part, which: NDArray[np.int64]) -> Part:
    """Some rows of a part."""
    return part[0][which], part[1][which]
