"""What of a checked report leaves its device: all of it, two shares of it, or figures of it under noise.

The last thing that happens on a device's side: in the gate or, with isolation, outside the client program's process,
which so cannot choose what is summed. Each device keeps its own reports, whatever left, in its folder's `report.json`.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from fedge.privacy.noise.budget import Budget
from fedge.privacy.noise.gaussian import gaussian
from fedge.privacy.noise.ledger import NAME, Ledger
from fedge.privacy.noise.vector import layout_of
from fedge.privacy.sums.shares import KEY_BYTES, packed, place_of, seal, sealed_bytes, split
from fedge.protocol import DeviceFailure, RoundPlan, RoundReport, Status
from fedge.protocol.agreement import can_be
from fedge.scenario.schema import Scenario

SHARES = "shares"  # the record's name in a message's content; and of the helper's key in a plan's
NOISED = "noised"
KEPT = "report.json"


def leaving(report: RoundReport, message: Message, scenario: Scenario, folder: Path | None) -> RecordDict:
    """The content of the reply to `message`. folder: the device's own; None: it has none, and keeps nothing.

    DeviceFailure where nothing is to be said: a report that cannot be true, one that is late, a budget that is spent.
    """
    if scenario.privacy.whole_reports or RoundPlan.from_message(message).phase == "hello":
        return report.content()
    if not can_be(report, frames=scenario.stream_frames):
        raise DeviceFailure(Status.CORRUPT_REPORT, "the report's counts cannot all be true")
    keep(report, folder)
    deadline_s = None if scenario.is_for_unseen(report.round) else scenario.selection.deadline_s
    if deadline_s is not None and report.time_s > deadline_s:
        raise DeviceFailure(Status.LATE)
    whose: dict[str, Any] = {"round": report.round, "client": report.client}
    if not scenario.privacy.speaks_in(report.round, scenario.rounds):
        return RecordDict({NOISED if _is_local(scenario) else SHARES: ConfigRecord(whose)})
    if _is_local(scenario):
        return RecordDict({NOISED: ConfigRecord({**whose, "entries": _noised(report, scenario, folder)})})
    own, others = split(layout_of(scenario).vector(report))
    sealed = seal(others, _helpers_key(message), place_of(report.round, report.client))
    return RecordDict({SHARES: ConfigRecord({**whose, "own": packed(own), "sealed": sealed})})


def sent_bytes(scenario: Scenario, round: int) -> int | None:
    """What a reply weighs where no report leaves whole, the same for all clients; None where reports leave whole."""
    if scenario.privacy.whole_reports:
        return None
    whose = len("round") + len("client") + 16
    if not scenario.privacy.speaks_in(round, scenario.rounds):
        return len(SHARES) + whose
    length = len(layout_of(scenario))
    if _is_local(scenario):
        return len(NOISED) + whose + len("entries") + 8 * length
    return len(SHARES) + whose + len("own") + 8 * length + len("sealed") + sealed_bytes(length)


def with_key(content: RecordDict, key: bytes | None) -> RecordDict:
    """A plan's content with the helper's public key beside it, where there is one."""
    if key is not None:
        content[SHARES] = ConfigRecord({"key": key})
    return content


def keep(report: RoundReport, folder: Path | None) -> None:
    """Put the report among the device's own, as a line of reports.jsonl would have it; a round's newest counts."""
    if folder is None:
        return
    row = {"round": report.round, "client": report.client, **report.row()}
    before = [held for held in kept_reports(folder) if held["round"] != report.round]
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        rows = sorted([*before, row], key=lambda held: held["round"])
        partial = folder / f"{KEPT}.partial"
        partial.write_text(json.dumps(rows) + "\n", encoding="utf-8")
        partial.replace(folder / KEPT)


def kept_reports(folder: Path) -> list[dict[str, Any]]:
    """A device's own reports, in order of the rounds; none where the file is missing or damaged."""
    with suppress(OSError, ValueError):
        rows: list[dict[str, Any]] = json.loads((folder / KEPT).read_text(encoding="utf-8"))
        return rows
    return []


def _is_local(scenario: Scenario) -> bool:
    return scenario.privacy.view == "each"


def _helpers_key(message: Message) -> bytes:
    record: Mapping[str, Any] = message.content.config_records.get(SHARES, {})
    key = record.get("key")
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise DeviceFailure(
            Status.BLOCKED_RECORD, "the plan brings no helper's key, so nobody could add up shares"
        )
    return key


def _noised(report: RoundReport, scenario: Scenario, folder: Path | None) -> bytes:
    """Figures under the device's own noise; charged, and kept, before they leave. A repeated plan hears them again."""
    if folder is None:
        raise DeviceFailure(Status.BLOCKED_RECORD, "the device has no folder for its ledger")
    budget = Budget.of(scenario)
    if budget is None:
        raise DeviceFailure(Status.BLOCKED_RECORD, "noise was asked for without a budget")
    budget = budget.kept()
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(folder / NAME, budget)
    if report.round not in ledger.releases:
        vector = layout_of(scenario).vector(report)
        noise = np.array(gaussian(budget.sigma)(len(vector)), dtype=np.int64).astype(np.uint64)
        verdict = ledger.charge(report.round, [report.client], [int(entry) for entry in vector + noise])
        if verdict != "charged":
            raise DeviceFailure(Status.BUDGET_SPENT)
    return packed(np.array(ledger.releases[report.round], dtype=np.uint64))
