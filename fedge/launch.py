"""Where all meet: scenario -> preparation -> grid -> coordinator -> results.

Under Ray this process coordinates and nothing else: it never imports torch and never opens a data file. Data are
prepared and devices run in Ray's processes.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from flwr.app import Context, RecordDict

from fedge.cache import let_go
from fedge.catalog.files import client_path
from fedge.catalog.function import program_of
from fedge.catalog.program import Program, read_programs
from fedge.console.observer import Observer
from fedge.console.table import summary_html, summary_text
from fedge.coordinator.app import server_app
from fedge.coordinator.opening import RunRequest
from fedge.engine.base import FleetGrid
from fedge.engine.isolation.process import require_possible
from fedge.engine.roster import THREAD_VARIABLES, ClientProgram, HostRequest, Member
from fedge.engine.tasks import JsonValue, run_task
from fedge.environment import Facts, environment
from fedge.errors import RunError, UserError
from fedge.paths import cache_folder
from fedge.privacy.isolation import isolation_of
from fedge.privacy.noise.budget import require_packages
from fedge.progress import Numbers, Progress
from fedge.results.owner import owned
from fedge.results.record import PROGRAMS
from fedge.results.run_folder import SUMMARY, read_reports
from fedge.scenario.file import absolute
from fedge.scenario.load import check, load_scenario
from fedge.scenario.schema import DeviceClass, OwnClient, Scenario

if TYPE_CHECKING:
    import pandas

GATE = "fedge.privacy.egress:egress_gate"
PREPARE = "fedge.prepare:prepare_json"


@dataclass(frozen=True)
class RunResult:
    """A finished run: `summary` is summary.json, `out` the folder with all results. It prints as the run's table."""

    out: Path
    summary: Mapping[str, Any]

    def reports(self, *, timing: bool = True) -> list[dict[str, Any]]:
        """The lines of reports.jsonl, in order of round and client; `timing` as in `read_reports`.

        UserError where the coordinator saw no report.
        """
        return read_reports(self.out, timing=timing)

    def frame(self) -> "pandas.DataFrame":
        """The reports as a pandas table: a row per client and round, a column per field of reports.jsonl."""
        import pandas

        return pandas.DataFrame(self.reports())

    def __str__(self) -> str:
        return summary_text(self.summary, self.out)

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        return summary_html(self.summary, self.out)


def run(
    scenario: Scenario | str | Path,
    out: str | Path | None = None,
    *,
    client: Callable[..., Any] | str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer = Observer(),  # noqa: B008 - it has no state
) -> RunResult:
    """Run `scenario` to its end and return its results, which are also in `out` (default: runs/<scenario's name>).

    scenario: one that was loaded, or what `load_scenario` takes: a name in `scenarios/`, or the path of a TOML file.
    client: in place of the scenario's client program: a path; or a function of (device, plan) that returns
    device.report(), defined in a notebook's cell or a module; or a class of which an instance is called so each round.
    Its text travels to the devices with the imports, functions and plain values that it uses; what else it uses from
    outside is refused.
    resume: go on after the last whole round of the run that `out` holds. overwrite: drop that run, where it is of
    another scenario or not at its end; a finished run of the same scenario is run again without being told.
    Raises UserError for what the caller can mend and RunError where the run failed.
    """
    program = program_of(client) if callable(client) else None
    changes = [f"client.program={client}"] if isinstance(client, str | Path) else []
    if isinstance(scenario, Scenario):
        scenario = checked(_with_client(scenario, str(client)) if changes else scenario)
    else:
        scenario = load_scenario(str(scenario), changes)
    require_no_reports_asked(scenario, observer)
    if program is not None:  # where the record of the run will hold it, so that its scenario.toml runs again
        scenario = _with_client(scenario, str(default_out(scenario, out) / PROGRAMS / "client.py"))
    result = run_checked(
        scenario, out, resume=resume, overwrite=overwrite, observer=observer, program=program
    )
    draw_page(result.out, observer.notice)
    return result


def require_no_reports_asked(scenario: Scenario, observer: Observer) -> None:
    """UserError for an observer of one's own that waits for single reports, where none arrives."""
    kind = type(observer)
    if scenario.privacy.whole_reports or kind.__module__.partition(".")[0] == "fedge":
        return
    if kind.report_arrived is not Observer.report_arrived:
        raise UserError(
            f"{kind.__name__}.report_arrived waits for single reports, and with privacy.view = 'sums' or an epsilon "
            "none arrives: leave the observer out, or let it watch round_finished"
        )


def draw_page(folder: Path, notice: Callable[[str], None]) -> None:
    """Put a finished run's page into its folder; where it cannot be drawn, `notice` is told and that is all."""
    from fedge.page.page import draw_beside
    from fedge.page.run_page import run_page

    draw_beside(folder, lambda: run_page(folder), notice)


def _with_client(scenario: Scenario, path: str) -> Scenario:
    args = dict(scenario.client_args)
    client = OwnClient(program=path, args=args) if args else path
    return scenario.model_copy(update={"client": client})


def checked(scenario: Scenario) -> Scenario:
    """A scenario that somebody made or changed in Python, as `load_scenario` would give it; UserError as there."""
    scenario = absolute(scenario)
    check(scenario)
    return scenario


def run_checked(
    scenario: Scenario,
    out: str | Path | None,
    *,
    resume: bool,
    overwrite: bool,
    observer: Observer,
    program: Program | None = None,
) -> RunResult:
    """`run` for a scenario that has just been loaded. program: the client's, where it is at hand."""
    folder = default_out(scenario, out)
    client = program or read_programs(client_path(scenario.client_program))
    programs = _on_record(client, scenario)
    named = frozenset(programs.keys() - client.as_files("client").keys())
    request = RunRequest(scenario, folder, resume, overwrite, programs, named)
    config: dict[str, Any] = {
        "scenario-json": scenario.model_dump_json(exclude_none=True),
        "out": str(folder),
    }
    with owned(folder, observer.notice):
        request.refuse()  # before minutes of preparation
        _require_extras(scenario)
        if scenario.privacy.isolation == "client" and scenario.engine.address == "local":
            require_possible(str(folder), str(cache_folder()))  # hosts elsewhere say it when they start
        with _grid(scenario, client, config, observer) as (grid, hosts):
            engine = {
                "kernels": str(scenario.engine.kernels),
                "device": str(scenario.engine.device),
                "isolation": str(scenario.privacy.isolation),
            }
            record = {**environment(), **engine, "hosts": hosts}
            app = server_app(scenario, observer, lambda: request.open(record))
            app(grid, Context(grid.run.run_id, 0, {}, RecordDict(), config))
        return RunResult(folder, json.loads((folder / SUMMARY).read_text(encoding="utf-8")))


def _on_record(client: Program, scenario: Scenario) -> dict[str, str]:
    """Path below programs/ -> text of all that runs on the devices and is not fedge's."""
    files = client.as_files("client")
    for program in scenario.programs.values():
        for name, text in program.as_files(program.name).items():
            taken = files.get(name, text) != text
            files[f"{program.name}_files/{name}" if taken else name] = text
    return files


def _require_extras(scenario: Scenario) -> None:
    """UserError where this environment lacks what the scenario takes; hosts elsewhere have their own."""
    if scenario.privacy.epsilon is not None:
        require_packages()
    if scenario.schedule.detector is None or scenario.engine.address != "local":
        return
    if not find_spec("river"):
        raise UserError(
            "schedule.detector takes river, which is not installed: pip install 'fedge[streams]', or leave it out"
        )


def default_out(scenario: Scenario, out: str | Path | None) -> Path:
    """The folder of results: `out`, else runs/<the scenario's name> in the working directory."""
    return Path(out or Path("runs") / scenario.name).expanduser().absolute()


@contextmanager
def _grid(
    scenario: Scenario, client: Program, config: dict[str, Any], observer: Observer
) -> Iterator[tuple[FleetGrid, list[Facts]]]:
    """Prepare where the devices run, then open the scenario's engine; also what that place is, per kind of node."""
    isolation = isolation_of(scenario)
    program = ClientProgram(client.name, client.source, GATE, client.files, client.is_package, isolation)
    roster = FleetRoster(scenario)
    engine = scenario.engine
    arguments: dict[str, JsonValue] = {"scenario_json": config["scenario-json"]}
    hear = hearing(observer)
    if engine.kind == "inline":
        from fedge.engine.inline import InlineGrid

        with threads_kept():
            hosts, _ = _prepared(config, observer, [run_task(PREPARE, arguments, hear)])
            try:
                with InlineGrid(program, roster, config, threads=engine.threads) as grid:
                    yield grid, hosts
            finally:
                let_go()
        return
    from fedge.engine.cluster import RayCluster
    from fedge.engine.placement import Placement
    from fedge.engine.ray import RayGrid

    requests = {device_class.label: host_request(scenario, device_class) for device_class in scenario.fleet}
    observer.progress(Progress("ray"))
    with RayCluster(engine.address) as cluster:
        Placement(cluster.nodes()).check(requests)  # before minutes of preparation
        sticky = engine.state == "sticky"
        gpus = min(request.num_gpus for request in requests.values())  # what any host is sure to get
        answers = cluster.run_tasks(PREPARE, arguments, num_gpus=gpus, on_every_node=sticky, hear=hear)
        hosts, rows = _prepared(config, observer, answers)
        observer.progress(Progress("hosts"))
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
            work=rows,
            on_event=observer.host_event,
            notice=observer.notice,
        ) as grid:
            yield grid, hosts


def hearing(observer: Observer) -> Callable[[Numbers], None]:
    """Tells `observer` of what preparation says: numbers, and none that are not `fedge.progress`'s."""

    def hear(numbers: Numbers) -> None:
        with suppress(ValueError):
            observer.progress(Progress.from_numbers(numbers))

    return hear


def _prepared(
    config: dict[str, Any], observer: Observer, answers: Sequence[JsonValue]
) -> tuple[list[Facts], list[int]]:
    """Note in `config` where the prepared data lie, the same on every node; what the nodes are, each kind once, and
    how many training rows each client has, where that may be known.

    What preparation has to tell goes to whoever watches the run.
    """
    found = [cast(dict[str, Any], answer) for answer in answers]
    hosts = [answer.pop("environment") for answer in found]
    if any(answer != found[0] for answer in found):
        raise RunError(f"the data are prepared unlike on {len(found)} nodes: their data files must be equal")
    config["data-path"] = found[0]["folder"]
    for line in found[0]["notices"]:
        observer.notice(line)
    return [facts for index, facts in enumerate(hosts) if facts not in hosts[:index]], found[0]["rows"]


@contextmanager
def threads_kept() -> Iterator[None]:
    """Devices in this process compute with `engine.threads`; afterwards its libraries are as the caller had them."""
    import torch

    from fedge.training.torch_device import ENVIRONMENT, settings_kept

    threads, before = torch.get_num_threads(), dict(os.environ)
    try:
        with settings_kept():
            yield
    finally:
        torch.set_num_threads(threads)
        for name in (*THREAD_VARIABLES, ENVIRONMENT):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


class FleetRoster(Sequence[Member]):
    """The scenario's clients as a grid's roster; a member is made when it is asked for."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._clients = scenario.clients

    def __len__(self) -> int:
        return self._clients

    @overload
    def __getitem__(self, client: int) -> Member: ...

    @overload
    def __getitem__(self, client: slice) -> Sequence[Member]: ...

    def __getitem__(self, client: int | slice) -> Member | Sequence[Member]:
        if isinstance(client, slice):
            return [self[index] for index in range(*client.indices(self._clients))]
        if not 0 <= client < self._clients:
            raise IndexError(client)
        device_class = self._scenario.device_class_of(client).label
        return Member(client, device_class, {"partition-id": client, "device-class": device_class})


def host_request(scenario: Scenario, device_class: DeviceClass) -> HostRequest:
    """What one Ray host of the class takes: the scenario's word, else the profile's."""
    asked, usual = device_class.ray, scenario.profile_of(device_class)
    memory_mb = usual.ray_memory_mb if asked.memory_mb is None else asked.memory_mb
    return HostRequest(
        num_cpus=usual.ray_num_cpus if asked.num_cpus is None else asked.num_cpus,
        num_gpus=asked.num_gpus,
        memory_bytes=int(memory_mb * 1e6),
        resources=dict(asked.resources),
    )
