"""What the coordinator remembers of each client from round to round: all of it stands in reports.jsonl."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from fedge.coordinator.policy import told
from fedge.protocol import KEEPS_STATE, Status

Row = Mapping[str, Any]


class Memory:
    """last_ok: each client's last good report. held: the last round of which its device must have kept a state.

    history: each client's lines, as a policy sees them; kept only where `keep_history`.
    """

    def __init__(self, *, keep_history: bool = False) -> None:
        self.last_ok: dict[int, Row] = {}
        self.held: dict[int, int] = {}
        self.history: defaultdict[int, list[Row]] = defaultdict(list)
        self._keep_history = keep_history

    def take(self, rows: Iterable[Row]) -> None:
        """Note the lines of a round, or of all rounds of a run that goes on."""
        for row in rows:
            client = row["client"]
            if row["status"] == Status.OK:
                self.last_ok[client] = row
            if row["status"] in KEEPS_STATE:
                self.held[client] = row["round"]
            if self._keep_history:
                self.history[client].append(told(row))
