"""The coordinator's loop: plan, exchange, check, write down, commit; round after round."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid
from pydantic import ValidationError

from fedge.console.observer import Observer
from fedge.coordinator import streams
from fedge.coordinator.cohort import Asked, Fleet
from fedge.coordinator.exchange import Parcel, exchange, find_clients, patience_s, reply_bytes
from fedge.coordinator.memory import Memory
from fedge.coordinator.metrics import (
    accuracy,
    errors,
    macs,
    own_figures,
    parameters_left,
    served,
    summarise_round,
)
from fedge.coordinator.paired import gain, hurt
from fedge.errors import RunError
from fedge.protocol import EXPLAINED, REPORT, DeviceFailure, RoundPlan, RoundReport, Status, status_of
from fedge.protocol.agreement import can_be
from fedge.protocol.budget import bits_at_most, facts_or_any
from fedge.protocol.figures import require_declared
from fedge.results.run_folder import RunFolder
from fedge.scenario.schema import Scenario
from fedge.seeding import derive_seed

Row = dict[str, Any]


def run_rounds(grid: Grid, scenario: Scenario, folder: RunFolder, observer: Observer) -> Row:
    """Run every round that `folder` does not hold yet and return the summary, which is also written there."""
    since_s = time.perf_counter()  # of a round: the end of the one before, so that their sum is the run's
    nodes = find_clients(grid, scenario)
    fleet = Fleet(scenario)
    memory = Memory(keep_history=fleet.by_history)
    memory.take(folder.rows("reports.jsonl"))
    observer.run_started(scenario)
    for round in range(folder.round + 1, scenario.all_rounds + 1):
        asked = fleet.ask(round, memory)
        observer.round_started(round, len(asked.plans))
        plans = fleet.sent(asked)
        rows, egress = _ask(grid, scenario, asked, nodes, folder, observer)
        closing = fleet.close(asked, rows)
        figures = summarise_round(round, rows, online=asked.online, closing=closing)
        figures |= {"unseen": True} if scenario.is_for_unseen(round) else {}
        figures |= streams.round_figures(scenario, round, rows)
        now_s = time.perf_counter()
        figures["wall_s"], since_s = round_s(now_s - since_s), now_s
        if failed := hopeless(rows, asked, clients=asked.fleet):
            folder.keep_failed(reports=rows, egress=egress, plans=plans, summary=figures)
            raise RunError(
                f"every client that was asked in round {round} failed; {explained(failed, folder.folder)}; "
                "mend that and run again" + (_AFTER_A_STOP if folder.round else "")
            )
        folder.commit(round, reports=rows, egress=egress, plans=plans, summary=figures)
        memory.take(rows)
        observer.round_finished(figures)
        for row in [row for row in rows if row["status"] in EXPLAINED][:1]:
            observer.notice(explained(row, folder.folder))
    summary = summarise_run(scenario, folder, memory.last_ok)
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
) -> tuple[list[Row], list[Row]]:
    """Exchange one round's plans for reports; the rows of reports.jsonl and egress.jsonl, in client order.

    A plan that went out twice is answered twice; the first answer counts, and both are in the egress.
    """
    parcels = [Parcel(client, nodes[client], plan) for client, plan in asked.plans.items()]
    parcels += [parcel for parcel in parcels if parcel.client in asked.twice]
    reports: dict[int, Row] = {}
    egress: list[Row] = []
    for client, reply in exchange(grid, parcels, patience_s(grid, scenario.engine)):
        arrived = None if client in asked.lost else reply
        row = report_row(scenario, asked.round, client, arrived)
        if arrived is not None:
            egress.append(egress_row(asked.round, client, arrived))
        if client not in reports:
            reports[client] = row
            observer.report_arrived(row)
        _refuse_to_go_on(row, scenario, asked.plans[client], folder)
    return [reports[client] for client in sorted(reports)], sorted(egress, key=lambda row: row["client"])


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


def report_row(scenario: Scenario, round: int, client: int, reply: Message | None) -> Row:
    """One line of reports.jsonl: the report where it is one for this round and client, else only its status."""
    row: Row = {"round": round, "client": client, "device": scenario.device_class_of(client).label}
    row |= {"unseen": True} if scenario.is_for_unseen(round) else {}
    if reply is None:
        return row | {"status": Status.NO_REPLY.value}
    status = status_of(reply)
    if status is not Status.OK:
        return row | {"status": status.value}
    try:
        report = RoundReport.from_record(reply.content[REPORT])
        require_declared(report.own, scenario.report.figures)
    except (ValidationError, KeyError, TypeError, AttributeError, DeviceFailure):
        return row | {"status": Status.CORRUPT_REPORT.value}
    agree = can_be(report, streamed=scenario.data.stream is not None)
    if (report.round, report.client) != (round, client) or not agree:
        return row | {"status": Status.CORRUPT_REPORT.value}
    return row | {"status": Status.OK.value} | report.row()


def egress_row(round: int, client: int, reply: Message) -> Row:
    """One line of egress.jsonl: what a message that left a device weighed and which fields it held."""
    if reply.has_error():
        fields = ["error"]
    else:
        fields = [sys.intern(f"{name}.{key}") for name, record in reply.content.items() for key in record]
    return {"round": round, "client": client, "bytes": reply_bytes(reply), "fields": fields}


def summarise_run(scenario: Scenario, folder: RunFolder, last_ok: Mapping[int, Mapping[str, Any]]) -> Row:
    """summary.json: accuracy by each client's last good report, sums over all rounds. Unseen clients and their round
    stand under `unseen` alone; what left the devices, and the wall clock, is of all."""
    rows = [last_ok[client] for client in sorted(last_ok)]
    rounds = list(folder.rows("rounds.jsonl"))
    egress = list(folder.rows("egress.jsonl"))
    messages, sent_bytes, fields = _egress_totals(egress)
    late = {"unseen": _outcome(scenario, rows, rounds, unseen=True)} if scenario.unseen else {}
    for figures in late.values():
        figures["bytes"] = sum(row["bytes"] for row in egress if scenario.is_for_unseen(row["round"]))
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "rounds": scenario.rounds,
        "clients": scenario.clients,
        **_outcome(scenario, rows, rounds, unseen=False),
        "egress": {
            "messages": messages,
            "bytes": sent_bytes,
            "bits_at_most": report_bits(scenario, folder.rows("plans.jsonl")),
            "fields": fields,
        },
        **late,
        "privacy": scenario.privacy.model_dump(),
        **own_figures(rows),
        **streams.run_figures(scenario, rounds),
        "failures": sum(figures["clients"] - figures["ok"] for figures in rounds),
        "never_reported": scenario.clients - len(rows),
        "wall_s": round_s(sum(figures["wall_s"] for figures in rounds)),
    }


def _outcome(
    scenario: Scenario,
    last_ok: Sequence[Mapping[str, Any]],
    rounds: Sequence[Mapping[str, Any]],
    *,
    unseen: bool,
) -> Row:
    """What the clients that nobody learns from have brought and cost in their one round, or all others in theirs."""
    rows = [row for row in last_ok if row.get("unseen", False) is unseen]
    own = [figures for figures in rounds if figures.get("unseen", False) is unseen]
    clients = scenario.unseen if unseen else scenario.clients - scenario.unseen
    return {
        **({"clients": clients} if unseen else {}),
        "accuracy": accuracy(rows),
        **errors(rows),
        "gain": gain(rows, seed=derive_seed(scenario.seed, "interval")),
        "hurt": hurt(rows),
        **served(rows),
        "macs": macs(own),
        "parameters_left": parameters_left(rows),
        "time_s": sum(figures["time_s"] for figures in own),
        "energy_j": sum(figures["energy_j"] for figures in own),
        **own_figures(rows),
        "failures": sum(figures["clients"] - figures["ok"] for figures in own),
        "never_reported": clients - len(rows),
    }


def report_bits(scenario: Scenario, sent: Iterable[Mapping[str, Any]]) -> int:
    """What the client program can choose of one report of the run at most; `sent`: lines of plans.jsonl."""
    sent = list(sent)
    epochs, serves = (
        [
            getattr(scenario.training, key),
            *(row[f"training.{key}"] for row in sent if f"training.{key}" in row),
        ]
        for key in ("epochs", "serve")
    )
    served = 0 if set(serves) <= {"last"} else scenario.all_rounds
    facts = facts_or_any(scenario.data.dataset)
    streamed = scenario.data.stream is not None
    return bits_at_most(max(epochs), scenario.report.figures, facts, served=served, streamed=streamed)


def _egress_totals(rows: Iterable[Row]) -> tuple[int, int, list[str]]:
    messages, sent_bytes, fields = 0, 0, set()
    for row in rows:
        messages += 1
        sent_bytes += row["bytes"]
        fields.update(row["fields"])
    return messages, sent_bytes, sorted(fields)


def round_s(seconds: float) -> float:
    """Wall-clock seconds as a result shows them."""
    return float(f"{seconds:.3f}")
