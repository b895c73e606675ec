"""The coordinator reads every report: each is a line of reports.jsonl, and all figures come from these lines."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from flwr.app import Message
from pydantic import ValidationError

from fedge.coordinator import streams
from fedge.coordinator.cohort import Asked, Fleet
from fedge.coordinator.exchange import reply_bytes
from fedge.coordinator.metrics import summarise_round
from fedge.coordinator.view.summary import summarise_run
from fedge.fleet.selection import Closing
from fedge.protocol import REPORT, DeviceFailure, RoundReport, Status, status_of
from fedge.protocol.agreement import can_be
from fedge.protocol.figures import require_declared
from fedge.results.run_folder import RunFolder
from fedge.scenario.schema import Scenario

Row = dict[str, Any]


class Each:
    """A context manager. key: what goes along with every plan, for the devices; None: nothing."""

    key: bytes | None = None

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario

    def row(self, round: int, client: int, reply: Message | None) -> Row:
        """What is noted of one answer; None: none came."""
        return report_row(self._scenario, round, client, reply)

    def close(self, fleet: Fleet, asked: Asked, rows: Sequence[Row]) -> Closing:
        """Which of the answers count."""
        return fleet.close(asked, rows)

    def figures(self, asked: Asked, rows: Sequence[Row], closing: Closing) -> Row:
        """The line of rounds.jsonl."""
        figures = summarise_round(asked.round, rows, online=asked.online, closing=closing)
        return figures | streams.round_figures(self._scenario, asked.round, rows)

    def logged(self, rows: list[Row], egress: list[Row]) -> tuple[list[Row], list[Row]]:
        """The lines of reports.jsonl and of egress.jsonl."""
        return rows, egress

    def remembered(self, folder: RunFolder) -> Iterable[Row]:
        """What the folder of a run that goes on tells of its rounds."""
        return folder.rows("reports.jsonl")

    def summary(self, folder: RunFolder, last_ok: Mapping[int, Mapping[str, Any]]) -> Row:
        """summary.json."""
        return summarise_run(self._scenario, folder, last_ok)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


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
    looked_for = scenario.schedule.detector is not None
    agree = can_be(
        report,
        frames=scenario.stream_frames,
        detecting=looked_for,
        exits=scenario.training.exits.most if scenario.training.exits else 0,
    )
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


def fields_once(egress: Iterable[Row]) -> list[Row]:
    """A round's lines of egress.jsonl, without the fields where they are those of the line before."""
    lines: list[Row] = []
    before = None
    for row in egress:
        same = row["fields"] == before
        before = row["fields"]
        lines.append({name: value for name, value in row.items() if not (same and name == "fields")})
    return lines
