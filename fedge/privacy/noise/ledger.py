"""The account of what has been said of whom: a file to which each round is written before anything of it is sent.

A line a round: {"round", "clients", "release"?}, with a digest. It is on disk (fsync) before `charge` returns, so a
process that is killed at any moment has sent nothing that is not charged; what was charged and not sent stays charged.
A last line that was cut short counts against everybody.

Without a budget nothing is spent, and the ledger sees to it that a round is not added up twice over unlike clients: the
difference of two sums is what the difference of the clients has said.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from fedge.errors import RunError
from fedge.privacy.noise.budget import Budget

NAME = "ledger.jsonl"

Verdict = Literal["charged", "again", "spent"]


class Ledger:
    """The file at `path`, opened anew or gone on with. RunError where it is damaged: a lost charge is no refund."""

    def __init__(self, path: Path, budget: Budget | None) -> None:
        self.path, self._budget = path, budget
        self._clients: dict[int, list[int]] = {}
        self.releases: dict[int, list[int]] = {}
        self._of_all = 0  # charges of which nobody knows any more whose they are
        self._read()

    def charge(self, round: int, clients: Iterable[int], release: Sequence[int] | None = None) -> Verdict:
        """Put the round on account. again: it is there; without a budget the same clients may be added up again.

        spent: one of the clients would have more told of it than the budget allows. Neither charges anything.
        release: what will be said, kept with the charge so that it can be said again.
        """
        named = sorted(clients)
        if round in self._clients:
            return "charged" if self._budget is None and self._clients[round] == named else "again"
        if self._budget is not None and self.spent_after(named) > self._budget.epsilon:
            return "spent"
        self._append({"round": round, "clients": named} | ({"release": list(release)} if release else {}))
        self._take(round, named, release)
        return "charged"

    def spent(self) -> float:
        """The epsilon that has been spent on the client of whom most was said; 0 without a budget."""
        counts = self._counts()
        return self._cost(max(counts.values(), default=0) + self._of_all)

    def spent_after(self, clients: Iterable[int]) -> float:
        """The same of these `clients`, after another charge."""
        counts = self._counts()
        return self._cost(max((counts[client] for client in clients), default=0) + self._of_all + 1)

    def _cost(self, rounds: int) -> float:
        return 0.0 if self._budget is None else self._budget.spent(rounds)

    def _counts(self) -> Counter[int]:
        """In how many rounds something was said of each client."""
        counts: Counter[int] = Counter()
        for named in self._clients.values():
            counts.update(named)
        return counts

    def _take(self, round: int, clients: list[int], release: Sequence[int] | None) -> None:
        self._clients[round] = clients
        if release:
            self.releases[round] = list(release)

    def _read(self) -> None:
        if not self.path.is_file():
            return
        *lines, cut = self.path.read_bytes().split(b"\n")
        self._of_all = int(bool(cut))
        for number, line in enumerate(lines, start=1):
            entry = _entry(line)
            if entry is None and line.endswith(_CUT):
                self._of_all += 1
                continue
            if entry is None:
                raise RunError(
                    f"{self.path}: line {number} is damaged, and what it charged is unknown: start over with "
                    "--overwrite, which is another run with a budget of its own"
                )
            self._take(entry["round"], entry["clients"], entry.get("release"))
        if cut:
            self._write(_CUT + b"\n")

    def _append(self, entry: dict[str, Any]) -> None:
        text = json.dumps(entry, sort_keys=True)
        self._write(json.dumps({"entry": text, "digest": _digest(text)}).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        """At the end of the file, and on disk when this returns, the file's own name too."""
        fresh = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            while line:
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:
            _sync_folder(self.path.parent)


_CUT = b"#cut"  # ends a line that was found cut short


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        held = json.loads(line)
        text = held["entry"]
        if held["digest"] != _digest(text):
            return None
        entry: dict[str, Any] = json.loads(text)
    except (ValueError, KeyError, TypeError):
        return None
    return entry


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
