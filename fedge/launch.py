"""Where all meet: scenario -> preparation -> grid -> coordinator -> results.

Under Ray this process coordinates and nothing else: it never imports torch and never opens a data file. Data are
prepared and devices run in Ray's processes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict

from fedge.catalog.devices import profile
from fedge.catalog.files import client_path
from fedge.console.observer import Observer
from fedge.coordinator.app import refuse_folder, server_app
from fedge.engine.base import FleetGrid
from fedge.engine.roster import ClientProgram, HostRequest, Member
from fedge.results.run_folder import SUMMARY, read_reports
from fedge.scenario.file import scenario_toml
from fedge.scenario.load import check, load_scenario
from fedge.scenario.schema import DeviceClass, Scenario


@dataclass(frozen=True)
class RunResult:
    """A finished run: `summary` is summary.json, `out` the folder with all results."""

    out: Path
    summary: Mapping[str, Any]

    def reports(self, *, timing: bool = True) -> list[dict[str, Any]]:
        """The lines of reports.jsonl, in order of round and client; `timing` as in `read_reports`."""
        return read_reports(self.out, timing=timing)


def run(
    scenario: Scenario | str | Path,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer = Observer(),  # noqa: B008 - it has no state
) -> RunResult:
    """Run `scenario` to its end and return its results, which are also in `out` (default: runs/<scenario's name>).

    scenario: one that was loaded, or what `load_scenario` takes: a name in `scenarios/`, or the path of a TOML file.
    resume: go on after the last whole round of the run that `out` holds. overwrite: drop that run, where it is of
    another scenario or not at its end; a finished run of the same scenario is run again without being told.
    Raises UserError for what the caller can mend and RunError where the run failed.
    """
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(str(scenario))
    check(scenario)
    folder = Path(out or Path("runs") / scenario.name).absolute()
    what_to_do = {"resume": resume, "overwrite": overwrite}
    refuse_folder(folder, scenario, **what_to_do)  # before minutes of preparation
    config = {"scenario-toml": scenario_toml(scenario), "out": str(folder), **what_to_do}
    with _grid(scenario, config, observer) as grid:
        server_app(observer)(grid, Context(grid.run.run_id, 0, {}, RecordDict(), config))
    return RunResult(folder, json.loads((folder / SUMMARY).read_text()))


@contextmanager
def _grid(scenario: Scenario, config: dict[str, Any], observer: Observer) -> Iterator[FleetGrid]:
    """Prepare where the devices run, then open the scenario's engine."""
    path = client_path(scenario.client)
    program = ClientProgram(
        path.stem, path.read_text(encoding="utf-8"), gate="fedge.privacy.egress:egress_gate"
    )
    roster = FleetRoster(scenario)
    engine = scenario.engine
    arguments = {"scenario_json": scenario.model_dump_json(exclude_none=True)}
    target = "fedge.prepare:prepare_json"
    if engine.kind == "inline":
        from fedge.engine.inline import InlineGrid
        from fedge.engine.tasks import run_task

        config["data-path"] = _prepared(run_task(target, arguments), observer)
        with InlineGrid(program, roster, config, threads=engine.threads) as grid:
            yield grid
        return
    from fedge.engine.cluster import RayCluster
    from fedge.engine.placement import Placement
    from fedge.engine.ray import RayGrid

    requests = {device_class.label: host_request(device_class) for device_class in scenario.fleet}
    with RayCluster(engine.address) as cluster:
        Placement(cluster.nodes()).check(requests)  # before minutes of preparation
        sticky = engine.state == "sticky"
        config["data-path"] = _prepared(cluster.run_task(target, arguments, on_every_node=sticky), observer)
        with RayGrid(
            program,
            roster,
            requests,
            config,
            cluster=cluster,
            hosts_per_class=engine.hosts,
            deadline_s=engine.deadline_s,
            retries=engine.retries,
            threads=engine.threads,
            sticky=sticky,
            on_event=observer.host_event,
        ) as grid:
            yield grid


def _prepared(prepared: Any, observer: Observer) -> str:
    """The folder that preparation has filled; what it has to tell goes to whoever watches the run."""
    for line in prepared["notices"]:
        observer.notice(line)
    return str(prepared["folder"])


class FleetRoster(Sequence[Member]):
    """The scenario's clients as a grid's roster; a member is made when it is asked for."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._clients = scenario.clients

    def __len__(self) -> int:
        return self._clients

    def __getitem__(self, client: int) -> Member:
        if not 0 <= client < self._clients:
            raise IndexError(client)
        device_class = self._scenario.device_class_of(client).label
        return Member(client, device_class, {"partition-id": client, "device-class": device_class})


def host_request(device_class: DeviceClass) -> HostRequest:
    """What one Ray host of the class takes: the scenario's word, else the profile's."""
    asked, usual = device_class.ray, profile(device_class.device)
    memory_mb = usual.ray_memory_mb if asked.memory_mb is None else asked.memory_mb
    return HostRequest(
        num_cpus=usual.ray_num_cpus if asked.num_cpus is None else asked.num_cpus,
        num_gpus=asked.num_gpus,
        memory_bytes=int(memory_mb * 1e6),
        resources=dict(asked.resources),
    )
