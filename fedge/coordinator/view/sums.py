"""The coordinator reads no report: it holds a share of each, which says nothing, and hears the sum of the others.

With `view` "each" and an `epsilon` there is no helper: what comes is noised already, and only its sum is kept.

What it knows of a single client is what the messages are by being there: who answered in which round, that it was late,
or the word with which it said that it has nothing to say. That is all it needs to plan the next round and to go on
after a stop, and it stands in egress.jsonl. Virtual time and energy are the simulated devices', which tell their sums.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from flwr.app import Message

from fedge.coordinator.cohort import Asked, Fleet
from fedge.coordinator.view import figures as of_sums
from fedge.coordinator.view.each import Each, Row
from fedge.coordinator.view.summary import summarise_sums
from fedge.fleet.selection import Closing
from fedge.privacy.leaving import NOISED, SHARES
from fedge.privacy.noise.budget import Budget
from fedge.privacy.noise.gaussian import is_foreseen
from fedge.privacy.noise.vector import NoisedLayout, layout_of
from fedge.privacy.sums.helping import HelpersSum, Helping
from fedge.privacy.sums.layout import Layout, Vector, add_up
from fedge.privacy.sums.shares import sealed_bytes, unpacked
from fedge.protocol import Status, status_of
from fedge.results.run_folder import RunFolder
from fedge.scenario.schema import Scenario


class Sums(Each):
    """A context manager: the helper's process lives as long. UserError where a package for noise is missing."""

    def __init__(self, scenario: Scenario, out: Path) -> None:
        super().__init__(scenario)
        self._out, self._layout = out, layout_of(scenario)
        self._local = scenario.privacy.view == "each"
        self._helping: Helping | None = None
        self._shares: dict[int, Vector] = {}  # of this round: the coordinator's own
        self._sealed: dict[int, bytes] = {}  # and the helper's, which it cannot open

    def row(self, round: int, client: int, reply: Message | None) -> Row:
        """How the client's round ended. What came of it is kept until the round is over; of two answers the first."""
        row: Row = {"round": round, "client": client, "device": self._scenario.device_class_of(client).label}
        row |= {"unseen": True} if self._scenario.is_for_unseen(round) else {}
        status = Status.NO_REPLY if reply is None else status_of(reply)
        if reply is not None and status is Status.OK and not self._take(round, client, reply):
            status = Status.CORRUPT_REPORT
        return row | {"status": status.value}

    def _take(self, round: int, client: int, reply: Message) -> bool:
        """Keep a good answer; False for what is none."""
        name = NOISED if self._local else SHARES
        record: Mapping[str, Any] = reply.content.config_records.get(name, {})
        if list(reply.content) != [name] or (record.get("round"), record.get("client")) != (round, client):
            return False
        if not self._scenario.privacy.speaks_in(round, self._scenario.rounds):
            return len(record) == 2
        raw = record.get("entries" if self._local else "own")
        share = unpacked(raw, len(self._layout)) if isinstance(raw, bytes) else None
        sealed = record.get("sealed", b"")
        whole = self._local or (isinstance(sealed, bytes) and len(sealed) == sealed_bytes(len(self._layout)))
        if share is None or not whole:
            return False
        self._shares.setdefault(client, share)
        self._sealed.setdefault(client, sealed)
        return True

    def close(self, fleet: Fleet, asked: Asked, rows: Sequence[Row]) -> Closing:
        """Which of the answers count, by the devices' own word."""
        return fleet.close_by_word(asked, rows)

    def figures(self, asked: Asked, rows: Sequence[Row], closing: Closing) -> Row:
        """The line of rounds.jsonl. `silent` says why a round says nothing."""
        ok = [row["client"] for row in rows if row["status"] == Status.OK]
        failures = Counter(row["status"] for row in rows if row["status"] != Status.OK)
        try:
            said = self._said(asked.round, ok)
        finally:
            self._shares, self._sealed = {}, {}
        return {
            "round": asked.round,
            "online": asked.online,
            "clients": len(rows),
            "wanted": closing.wanted,
            "quorum_met": closing.quorum_met,
            "ok": len(ok),
            "failures": dict(sorted(failures.items())),
            **said,
            "time_s": closing.time_s or None,
        }

    def _said(self, round: int, ok: Sequence[int]) -> Row:
        """What the two servers know together of the clients that answered both."""
        scenario = self._scenario
        if not scenario.privacy.speaks_in(round, scenario.rounds):
            return of_sums.silent_figures(scenario, round) | {"silent": "not_now"}
        heard = self._heard(round, ok)
        if heard.silent is not None:
            return of_sums.silent_figures(scenario, round) | {"silent": heard.silent}
        own = add_up((self._shares[client] for client in heard.clients), len(self._layout))
        total = own + np.array(heard.total, dtype=np.uint64) if heard.total else own
        if isinstance(self._layout, Layout):
            sums = self._layout.named(total.tolist())
            if sums["answered"] != len(heard.clients):
                return of_sums.silent_figures(scenario, round) | {"silent": "unlike"}
            return of_sums.figures_of(sums, scenario, round) | {"counted": len(heard.clients)}
        return self._noised(self._layout, total, heard, round)

    def _heard(self, round: int, ok: Sequence[int]) -> HelpersSum:
        """The helper's sum; of noised figures, which need none, who is in theirs."""
        if self._helping is not None:
            return self._helping.sum(round, {client: self._sealed[client] for client in ok})
        if len(ok) < self._scenario.privacy.min_cohort:
            return HelpersSum(silent="few")
        return HelpersSum(clients=tuple(ok))

    def _noised(self, layout: NoisedLayout, total: Vector, heard: HelpersSum, round: int) -> Row:
        clients, budget = len(heard.clients), Budget.of(self._scenario)
        said = layout.named(total.tolist(), clients)
        found = of_sums.noised_figures(said, self._scenario, round, clients)
        if budget is not None:
            sigma = heard.sigma or budget.sigma * clients**0.5
            sd = sigma / (2 * layout.levels * clients)
            noise = {"epsilon": heard.spent or budget.epsilon, "delta": budget.delta, "sd": sd}
            found["noise"] = noise | ({"for_tests": True} if self._is_foreseen() else {})
        return found | {"counted": clients}

    def _is_foreseen(self) -> bool:
        return is_foreseen() if self._helping is None else self._helping.foreseen

    def logged(self, rows: list[Row], egress: list[Row]) -> tuple[list[Row], list[Row]]:
        """No line of reports.jsonl; those of egress.jsonl say how the round ended for whom."""
        ended = {row["client"]: row["status"] for row in rows}
        return [], [{**row, "status": ended[row["client"]]} for row in egress]

    def remembered(self, folder: RunFolder) -> Iterable[Row]:
        return folder.rows("egress.jsonl")

    def summary(self, folder: RunFolder, last_ok: Mapping[int, Mapping[str, Any]]) -> Row:
        return summarise_sums(self._scenario, folder, len(last_ok))

    def __enter__(self) -> Self:
        if not self._local:
            self._helping = Helping(self._scenario, self._out)
            self.key = self._helping.key
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._helping is not None:
            self._helping.close()
