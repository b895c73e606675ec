"""The coordinator's loop: plan, exchange, check, write down, commit; round after round."""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid
from pydantic import ValidationError

from fedge.console.observer import Observer
from fedge.coordinator.cohort import Asked, Fleet
from fedge.coordinator.exchange import Parcel, exchange, find_clients, reply_bytes
from fedge.coordinator.metrics import accuracy, parameters_left, saved, summarise_round
from fedge.coordinator.paired import gain, hurt
from fedge.errors import RunError
from fedge.protocol import EXPLAINED, REPORT, RoundReport, Status, status_of
from fedge.results.run_folder import RunFolder
from fedge.scenario.schema import Scenario
from fedge.seeding import derive_seed

Row = dict[str, Any]


def run_rounds(grid: Grid, scenario: Scenario, folder: RunFolder, observer: Observer) -> Row:
    """Run every round that `folder` does not hold yet and return the summary, which is also written there."""
    since_s = time.perf_counter()  # of a round: the end of the one before, so that their sum is the run's
    nodes = find_clients(grid, scenario)
    fleet = Fleet(scenario)
    last_ok = {row["client"]: row for row in folder.rows("reports.jsonl") if row["status"] == Status.OK}
    for round in range(folder.round + 1, scenario.rounds + 1):
        asked = fleet.ask(round)
        observer.round_started(round, len(asked.plans))
        rows, egress = _ask(grid, scenario, asked, nodes, observer)
        closing = fleet.close(asked, rows)
        last_ok |= {row["client"]: row for row in rows if row["status"] == Status.OK}
        figures = summarise_round(round, rows, online=asked.online, closing=closing)
        now_s = time.perf_counter()
        figures["wall_s"], since_s = round_s(now_s - since_s), now_s
        folder.commit(round, reports=rows, egress=egress, summary=figures)
        observer.round_finished(figures)
        for row in [row for row in rows if row["status"] in EXPLAINED][:1]:
            log = folder.folder / "devices" / str(row["client"]) / "errors.log"
            observer.notice(f"client {row['client']}: {row['status']}, see {log}")
    summary = summarise_run(scenario, folder, last_ok)
    folder.finish(summary)
    return summary


def _ask(
    grid: Grid, scenario: Scenario, asked: Asked, nodes: Mapping[int, int], observer: Observer
) -> tuple[list[Row], list[Row]]:
    """Exchange one round's plans for reports; the rows of reports.jsonl and egress.jsonl, in client order.

    A plan that went out twice is answered twice; the first answer counts, and both are in the egress.
    """
    parcels = [Parcel(client, nodes[client], plan) for client, plan in asked.plans.items()]
    parcels += [parcel for parcel in parcels if parcel.client in asked.twice]
    reports: dict[int, Row] = {}
    egress: list[Row] = []
    patience_s = scenario.engine.deadline_s * (scenario.engine.retries + 2)
    for client, reply in exchange(grid, parcels, patience_s):
        arrived = None if client in asked.lost else reply
        row = report_row(scenario, asked.round, client, arrived)
        if arrived is not None:
            egress.append(egress_row(asked.round, client, arrived))
        if client not in reports:
            reports[client] = row
            observer.report_arrived(row)
        if row["status"] == Status.DOES_NOT_FIT and scenario.limits.memory == "fail":
            raise RunError(
                f"client {client}: the plan does not fit device {row['device']!r} and limits.memory is 'fail'; "
                f"see devices/{client}/errors.log, and `fedge plan` for what each class needs"
            )
    return [reports[client] for client in sorted(reports)], sorted(egress, key=lambda row: row["client"])


def report_row(scenario: Scenario, round: int, client: int, reply: Message | None) -> Row:
    """One line of reports.jsonl: the report where it is one for this round and client, else only its status."""
    row: Row = {"round": round, "client": client, "device": scenario.device_class_of(client).label}
    status = Status.NO_REPLY if reply is None else status_of(reply)
    if status is not Status.OK:
        return row | {"status": status.value}
    try:
        report = RoundReport.model_validate(dict(reply.content[REPORT]))
    except (ValidationError, KeyError, TypeError):
        return row | {"status": Status.CORRUPT_REPORT.value}
    if (report.round, report.client) != (round, client) or not _tallies_agree(report):
        return row | {"status": Status.CORRUPT_REPORT.value}
    return row | {"status": Status.OK.value} | report.model_dump(exclude={"round", "client"})


def _tallies_agree(report: RoundReport) -> bool:
    """No more right answers than questions, no more kept than seen; gained and lost explain the difference."""
    return (
        report.samples_kept <= report.samples_seen
        and report.test_correct <= report.test_count
        and report.factory_correct <= report.test_count
        and report.told_correct <= report.test_count
        and report.test_gained - report.test_lost == report.test_correct - report.factory_correct
        and report.test_lost <= report.factory_correct <= report.test_count - report.test_gained
        and report.validation_correct <= report.validation_count
    )


def egress_row(round: int, client: int, reply: Message) -> Row:
    """One line of egress.jsonl: what a message that left a device weighed and which fields it held."""
    if reply.has_error():
        fields = ["error"]
    else:
        fields = [sys.intern(f"{name}.{key}") for name, record in reply.content.items() for key in record]
    return {"round": round, "client": client, "bytes": reply_bytes(reply), "fields": fields}


def summarise_run(scenario: Scenario, folder: RunFolder, last_ok: dict[int, Row]) -> Row:
    """summary.json: accuracy by each client's last good report, sums over all rounds."""
    rows = [last_ok[client] for client in sorted(last_ok)]
    rounds = list(folder.rows("rounds.jsonl"))
    messages, sent_bytes, fields = _egress_totals(folder.rows("egress.jsonl"))
    done, dense = (sum(figures[name] for figures in rounds) for name in ("macs_done", "macs_dense"))
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "rounds": scenario.rounds,
        "clients": scenario.clients,
        "accuracy": accuracy(rows),
        "gain": gain(rows, seed=derive_seed(scenario.seed, "interval")),
        "hurt": hurt(rows),
        "macs": {"done": done, "dense": dense, "saved": saved(done, dense)},
        "parameters_left": parameters_left(rows),
        "time_s": sum(figures["time_s"] for figures in rounds),
        "energy_j": sum(figures["energy_j"] for figures in rounds),
        "egress": {"messages": messages, "bytes": sent_bytes, "fields": fields},
        "failures": sum(figures["clients"] - figures["ok"] for figures in rounds),
        "never_reported": scenario.clients - len(rows),
        "wall_s": round_s(sum(figures["wall_s"] for figures in rounds)),
    }


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
