"""One client, one round, in this process: for somebody who writes a program and wants to see it run.

It is the run's own machinery - preparation, plan, gate, report - with the whole fleet's data divided as in a run. Only
fortune is left out (nobody is away, nothing fails on purpose); what the device prints is shown, and its whole report.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedge.cache import let_go
from fedge.catalog.files import client_path
from fedge.catalog.program import read_programs
from fedge.coordinator.exchange import reply_bytes
from fedge.coordinator.memory import Memory
from fedge.coordinator.planner import Planner
from fedge.coordinator.view.each import report_row
from fedge.engine.inline import InlineGrid
from fedge.engine.roster import ClientProgram, node_id_of
from fedge.errors import UserError
from fedge.launch import GATE, FleetRoster, threads_kept
from fedge.prepare import prepare_json
from fedge.privacy.output import shown
from fedge.protocol import content_bytes
from fedge.scenario.fleet import Availability, Faults
from fedge.scenario.schema import Scenario


@dataclass(frozen=True)
class Trial:
    """What came of it. `row`: as in reports.jsonl. trace: of what the program raised; None: nothing."""

    row: Mapping[str, Any]
    phase: str
    sent_bytes: int
    received_bytes: int
    trace: str | None

    @property
    def ok(self) -> bool:
        """Whether there is a report."""
        return bool(self.row["status"] == "ok")


def data_for(scenario: Scenario) -> str:
    """The folder of the scenario's prepared data. Errors as a run's; their cause is what the user's code raised."""
    with threads_kept():
        return str(prepare_json(scenario.model_dump_json(exclude_none=True))["folder"])


def require_there(scenario: Scenario, client: int, round: int) -> None:
    """UserError where the scenario has no such client, or no such round."""
    if not 0 <= client < scenario.clients:
        raise UserError(f"--client is {client}; the scenario has clients 0 to {scenario.clients - 1}")
    if not 1 <= round <= scenario.rounds:
        raise UserError(f"--round is {round}; the scenario has rounds 1 to {scenario.rounds}")


def try_client(scenario: Scenario, data: str, out: Path, *, client: int = 0, round: int = 1) -> Trial:
    """Run `client`'s `round` with the factory model in hand, on prepared `data`; its folder is out/devices/<client>.

    Raises UserError as a run does; its cause is what the user's own code raised.
    """
    require_there(scenario, client, round)
    scenario = _without_fortune(scenario)
    program = read_programs(client_path(scenario.client_program))
    plan = Planner(scenario).plans(round, [client], Memory(keep_history=True))[client]
    with threads_kept():
        text = scenario.model_dump_json(exclude_none=True)
        config: dict[str, Any] = {"scenario-json": text, "out": str(out), "data-path": data}
        travelling = ClientProgram(program.name, program.source, GATE, program.files, program.is_package)
        threads = scenario.engine.threads
        try:
            with InlineGrid(travelling, FleetRoster(scenario), config, threads=threads) as grid, shown():
                message = plan.to_message(node_id_of(client))
                (reply,) = grid.send_and_receive([message])
        finally:
            let_go()
    log = out / "devices" / str(client) / "errors.log"
    return Trial(
        row=report_row(scenario, round, client, reply),
        phase=plan.phase,
        sent_bytes=reply_bytes(reply),
        received_bytes=content_bytes(plan.content()),
        trace=log.read_text(encoding="utf-8") if log.is_file() else None,
    )


def _without_fortune(scenario: Scenario) -> Scenario:
    engine = scenario.engine.model_copy(update={"kind": "inline"})
    energy = scenario.energy.model_copy(update={"start": 1.0})
    privacy = scenario.privacy.model_copy(update={"view": "each", "epsilon": None, "speaks": None})
    fortune = {"energy": energy, "availability": Availability(), "faults": Faults()}
    return scenario.model_copy(update={"engine": engine, "privacy": privacy, **fortune})
