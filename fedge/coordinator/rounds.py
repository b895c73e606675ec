"""The coordinator's loop: plan, exchange, check, write down, commit; round after round."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fedge.console.observer import Observer
from fedge.coordinator.cohort import Asked, Fleet
from fedge.coordinator.exchange import Parcel, exchange, find_clients, patience_s
from fedge.coordinator.memory import Memory
from fedge.coordinator.view.each import Each, egress_row, fields_once
from fedge.coordinator.view.summary import round_s
from fedge.errors import RunError
from fedge.protocol import EXPLAINED, RoundPlan, Status
from fedge.results.run_folder import RunFolder
from fedge.scenario.schema import Scenario

Row = dict[str, Any]


def run_rounds(grid: Grid, scenario: Scenario, folder: RunFolder, observer: Observer) -> Row:
    """Run every round that `folder` does not hold yet and return the summary, which is also written there."""
    with _view_of(scenario, folder.folder) as view:
        return _run_rounds(grid, scenario, folder, observer, view)


def _view_of(scenario: Scenario, out: Path) -> Each:
    """How the coordinator sees the clients' answers."""
    if scenario.privacy.whole_reports:
        return Each(scenario)
    from fedge.coordinator.view.sums import Sums

    return Sums(scenario, out)


def _run_rounds(grid: Grid, scenario: Scenario, folder: RunFolder, observer: Observer, view: Each) -> Row:
    since_s = time.perf_counter()  # of a round: the end of the one before, so that their sum is the run's
    nodes = find_clients(grid, scenario)
    fleet = Fleet(scenario)
    memory = Memory(keep_history=fleet.by_history)
    memory.take(view.remembered(folder))
    observer.run_started(scenario)
    for round in range(folder.round + 1, scenario.all_rounds + 1):
        asked = fleet.ask(round, memory)
        observer.round_started(round, len(asked.plans))
        plans = fleet.sent(asked)
        rows, egress = _ask(grid, scenario, asked, nodes, folder, observer, view)
        figures = view.figures(asked, rows, view.close(fleet, asked, rows))
        figures |= {"unseen": True} if scenario.is_for_unseen(round) else {}
        reports, egress = view.logged(rows, egress)
        now_s = time.perf_counter()
        figures["wall_s"], since_s = round_s(now_s - since_s), now_s
        if failed := hopeless(rows, asked, clients=asked.fleet):
            folder.keep_failed(reports=reports, egress=egress, plans=plans, summary=figures)
            raise RunError(
                f"every client that was asked in round {round} failed; {explained(failed, folder.folder)}; "
                "mend that and run again" + (_AFTER_A_STOP if folder.round else "")
            )
        folder.commit(round, reports=reports, egress=egress, plans=plans, summary=figures)
        memory.take(rows)
        observer.round_finished(figures)
        for row in [row for row in rows if row["status"] in EXPLAINED][:1]:
            observer.notice(explained(row, folder.folder))
    summary = view.summary(folder, memory.last_ok)
    folder.finish(summary)
    observer.run_finished(summary)
    return summary


def hopeless(rows: Sequence[Row], asked: Asked, clients: int) -> Row | None:
    """The first failure of a round in which nobody could do what was asked, by a fault of the program or the plan.

    None where somebody could, or where it was bad luck: a fault that the scenario injects, a device that was away.
    What one device's data or size may bring about counts only where all `clients` were asked that the round is for.
    """
    own = [row for row in rows if row["status"] in EXPLAINED and asked.plans[row["client"]].fault is None]
    if not own or len(own) < len(rows):
        return None
    by_program = [row for row in own if row["status"] not in _OF_ONE_DEVICE]
    return own[0] if len(own) == clients else next(iter(by_program), None)


_AFTER_A_STOP = " with --resume, or with --overwrite where the program had to change"
_OF_ONE_DEVICE = (Status.OUT_OF_MEMORY, Status.DOES_NOT_FIT, Status.DIVERGED, Status.NO_TRAINING_DATA)


def explained(row: Row, out: Path) -> str:
    """A failed client in one line, with its device's log where this process can see it."""
    return f"client {row['client']}: {row['status']}{_pointer(row['client'], out)}"


def _pointer(client: int, out: Path) -> str:
    log = out / "devices" / str(client) / "errors.log"
    return f", see {log}" if log.is_file() else ""


def _ask(
    grid: Grid,
    scenario: Scenario,
    asked: Asked,
    nodes: Mapping[int, int],
    folder: RunFolder,
    observer: Observer,
    view: Each,
) -> tuple[list[Row], list[Row]]:
    """Exchange one round's plans for reports; the rows of reports.jsonl and egress.jsonl, in client order.

    A plan that went out twice is answered twice; the first answer counts, and both are in the egress.
    """
    parcels = [Parcel(client, nodes[client], plan) for client, plan in asked.plans.items()]
    parcels += [parcel for parcel in parcels if parcel.client in asked.twice]
    reports: dict[int, Row] = {}
    egress: list[Row] = []
    for client, reply in exchange(grid, parcels, patience_s(grid, scenario.engine), view.key):
        arrived = None if client in asked.lost else reply
        row = view.row(asked.round, client, arrived)
        if arrived is not None:
            egress.append(egress_row(asked.round, client, arrived))
        if client not in reports:
            reports[client] = row
            observer.report_arrived(row)
        _refuse_to_go_on(row, scenario, asked.plans[client], folder)
    in_order = sorted(egress, key=lambda row: row["client"])
    return [reports[client] for client in sorted(reports)], fields_once(in_order)


def _refuse_to_go_on(row: Row, scenario: Scenario, plan: RoundPlan, folder: RunFolder) -> None:
    """Raise RunError for a status that ends the run, whatever the other clients have to say."""
    client = row["client"]
    if row["status"] == Status.LOST_STATE:
        raise RunError(
            f"client {client} has lost its state (it must hold that of round {plan.after}): devices/{client}, among "
            "the results or on its own node, is gone, damaged or older; put it back and run again with --resume, or "
            "start over with --overwrite"
        )
    if row["status"] == Status.DOES_NOT_FIT and scenario.limits.memory == "fail":
        raise RunError(
            f"client {client}: the plan does not fit device {row['device']!r} and limits.memory is 'fail'"
            f"{_pointer(client, folder.folder)}; `fedge plan` says what each class needs"
        )
