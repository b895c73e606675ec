"""The coordinator's loop: plan, exchange, check, write down, commit; round after round."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid
from pydantic import ValidationError

from fedge.coordinator.exchange import exchange, find_clients, reply_bytes
from fedge.coordinator.metrics import accuracies, parameters_left, saved, spread, summarise_round
from fedge.coordinator.schedule import plan_round
from fedge.protocol import REPORT, RoundReport, Status, status_of
from fedge.report.observer import Observer
from fedge.report.run_folder import RunFolder
from fedge.scenario import Scenario


def run_rounds(grid: Grid, scenario: Scenario, folder: RunFolder, observer: Observer) -> dict[str, Any]:
    """Run every round that `folder` does not hold yet and return the summary, which is also written there."""
    started = time.perf_counter()
    nodes = find_clients(grid, scenario)
    patience_s = scenario.engine.deadline_s * (scenario.engine.retries + 2)
    last_ok = {row["client"]: row for row in folder.rows("reports.jsonl") if row["status"] == Status.OK}
    for round in range(folder.round + 1, scenario.rounds + 1):
        plan = plan_round(scenario, round)
        plans = {client: (node, plan) for client, node in nodes.items()}
        observer.round_started(round, len(plans))
        reports: dict[int, dict[str, Any]] = {}
        egress: dict[int, dict[str, Any]] = {}
        for client, reply in exchange(grid, plans, patience_s):
            reports[client] = row = report_row(scenario, round, client, reply)
            if reply is not None:
                egress[client] = egress_row(round, client, reply)
            observer.report_arrived(row)
        rows = [reports[client] for client in sorted(reports)]
        last_ok |= {row["client"]: row for row in rows if row["status"] == Status.OK}
        figures = summarise_round(round, rows)
        folder.commit(round, reports=rows, egress=_in_order(egress), summary=figures)
        observer.round_finished(figures)
    summary = summarise_run(scenario, folder, last_ok) | {"wall_s": round_s(time.perf_counter() - started)}
    folder.finish(summary)
    return summary


def report_row(scenario: Scenario, round: int, client: int, reply: Message | None) -> dict[str, Any]:
    """One line of reports.jsonl: the report where it is one for this round and client, else only its status."""
    row: dict[str, Any] = {"round": round, "client": client, "device": scenario.device_class_of(client).label}
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
    """No more right answers than questions, no more kept than seen."""
    return (
        report.samples_kept <= report.samples_seen
        and report.test_correct <= report.test_count
        and report.factory_correct <= report.test_count
        and report.validation_correct <= report.validation_count
    )


def egress_row(round: int, client: int, reply: Message) -> dict[str, Any]:
    """One line of egress.jsonl: what a message that left a device weighed and which fields it held."""
    if reply.has_error():
        fields = ["error"]
    else:
        fields = [f"{name}.{key}" for name, record in reply.content.items() for key in record]
    return {"round": round, "client": client, "bytes": reply_bytes(reply), "fields": fields}


def summarise_run(
    scenario: Scenario, folder: RunFolder, last_ok: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """summary.json: accuracy by each client's last good report, sums over all rounds."""
    rows = [last_ok[client] for client in sorted(last_ok)]
    rounds = list(folder.rows("rounds.jsonl"))
    messages, sent_bytes, fields = _egress_totals(folder.rows("egress.jsonl"))
    done, dense = (sum(figures[name] for figures in rounds) for name in ("macs_done", "macs_dense"))
    factory = spread(accuracies(rows, "factory_correct"))["mean"]
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "rounds": scenario.rounds,
        "clients": scenario.clients,
        "accuracy": {"factory": factory, **spread(accuracies(rows, "test_correct"))},
        "macs": {"done": done, "dense": dense, "saved": saved(done, dense)},
        "parameters_left": parameters_left(rows),
        "time_s": sum(figures["time_s"] for figures in rounds),
        "energy_j": sum(figures["energy_j"] for figures in rounds),
        "egress": {"messages": messages, "bytes": sent_bytes, "fields": fields},
        "failures": sum(figures["clients"] - figures["ok"] for figures in rounds),
        "never_reported": scenario.clients - len(rows),
    }


def _egress_totals(rows: Iterable[dict[str, Any]]) -> tuple[int, int, list[str]]:
    messages, sent_bytes, fields = 0, 0, set()
    for row in rows:
        messages += 1
        sent_bytes += row["bytes"]
        fields.update(row["fields"])
    return messages, sent_bytes, sorted(fields)


def _in_order(by_client: dict[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (by_client[client] for client in sorted(by_client))


def round_s(seconds: float) -> float:
    """Wall-clock seconds as a result shows them."""
    return float(f"{seconds:.3f}")
