"""What a person watches while work goes on: a live bar on a terminal, plain lines anywhere else."""

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from fedge.console.observer import Observer
from fedge.console.phases import LABELS, Pace, counts, ending, percent
from fedge.progress import Progress, listening

if TYPE_CHECKING:
    from fedge.engine.pool import HostEvent

# What a log is told of while it lasts, after so many seconds. The rest is told of when a host is up or the first report
# is in: wrong input, of data, of a network or of a program, has shown by then, and is one line.
_PATIENCE_S = {
    "waiting": 1.0,
    "factory": 1.0,
    "importing": 3.0,
    "forecast": 3.0,
    "listing": 3.0,
}
_USUAL_PATIENCE_S = 10.0
_AGAIN_S = 10.0  # between two lines of one phase


@contextmanager
def watching(quiet: bool = False, rounds: int = 0) -> Iterator[Observer]:
    """Whoever fits standard error: nobody where `quiet`, a live bar on a terminal, else plain lines."""
    if quiet:
        yield Observer()
    elif Console(stderr=True).is_terminal:
        # a stream of its own: devices in this process print elsewhere while the bar goes on
        with (
            open(os.dup(sys.stderr.fileno()), "w", encoding="utf-8") as stream,
            LiveProgress(Console(file=stream), rounds) as live,
        ):
            yield live
    else:
        with PlainProgress() as plain:
            yield plain


@contextmanager
def watched() -> Iterator[None]:
    """The same for a command that is no run: what it does inside may take more than a second, and is told of."""
    with watching() as observer, listening(observer.progress):
        yield


class PlainProgress(Observer):
    """For logs and pipes: what preparation took, how far a phase is that lasts, then a line per round.

    A context manager where it watches phases: nothing is printed after it.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr  # as it is now: a network that is tried has another
        self._pace = Pace()
        self._said_s = 0.0
        self._hosts = 0
        self._timer: threading.Timer | None = None
        self._held: list[str] = []  # lines that wait for one that is worth printing
        self._writing = threading.Lock()

    def __enter__(self) -> "PlainProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._silence()

    def progress(self, progress: Progress) -> None:
        begins = self._pace.take(progress)
        text = ending(progress, self._pace.took_s)
        if begins:
            self._silence()
            spent = self._pace.spent() if progress.phase in ("factory", "cached") else ""
            self._held += [line for line in (spent, text) if line]
        if text:
            return
        if begins:
            self._timer = threading.Timer(_PATIENCE_S.get(progress.phase, _USUAL_PATIENCE_S), self._say)
            self._timer.daemon = True
            self._timer.start()
        elif self._said_s and time.monotonic() - self._said_s > _AGAIN_S:
            self._say()

    def _say(self) -> None:
        self._said_s = time.monotonic()
        self.notice(self._pace.line() + (f"  {self._hosts} up" if self._hosts else ""))

    def _silence(self) -> None:
        """The present phase is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._said_s = 0.0

    def report_arrived(self, row: Mapping[str, Any]) -> None:
        self._silence()
        self._print()

    def round_finished(self, figures: Mapping[str, Any]) -> None:
        self._silence()
        self._print(round_line(figures))

    def host_event(self, event: "HostEvent") -> None:
        self._hosts += event.kind == "host_started"
        text = host_line(event)
        self._print(*([text] if text else []))

    def notice(self, text: str) -> None:
        self._print(text)

    def _print(self, *lines: str) -> None:
        """These lines, after those that were held back."""
        with self._writing:
            held, self._held = self._held, []
            for line in (*held, *lines):
                print(line, file=self._stream, flush=True)


class LiveProgress(Observer):
    """A bar over what is prepared and then over all messages of the run, below a line per finished round.

    All of it fits 80 characters. A context manager: the bar is drawn while it is entered.
    """

    def __init__(self, console: Console, rounds: int = 0) -> None:
        self._rounds = rounds
        self._bar = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=18),
            TextColumn("{task.fields[counts]}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None, counts="", note="", left="")
        self._pace = Pace()
        self._clients = self._done = self._failed = self._hosts = 0
        self._in_rounds = False

    def __enter__(self) -> "LiveProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def progress(self, progress: Progress) -> None:
        begins = self._pace.take(progress)
        if text := ending(progress, self._pace.took_s):
            self.notice(text)
            return
        if begins:
            self._bar.reset(self._task)
        self._bar.update(
            self._task,
            description=LABELS[progress.phase],
            total=progress.of or None,
            completed=progress.done,
            left="left" if progress.of else "",
            counts=counts(progress),
            note="" if progress.accuracy is None else f"{percent(progress.accuracy)} right",
        )

    def round_started(self, round: int, clients: int) -> None:
        if not self._in_rounds:
            self._in_rounds = True
            self._bar.reset(self._task)
        self._clients, self._done = clients, 0
        self._bar.update(
            self._task,
            description=f"round {round}/{self._rounds}",
            total=clients * self._rounds,
            completed=clients * (round - 1),
            left="left",
            counts=self._answered(),
            note=self._note(),
        )

    def report_arrived(self, row: Mapping[str, Any]) -> None:
        self._done += 1
        self._failed += row["status"] != "ok"
        self._bar.update(self._task, advance=1, counts=self._answered(), note=self._note())

    def round_finished(self, figures: Mapping[str, Any]) -> None:
        self.notice(round_line(figures))

    def host_event(self, event: "HostEvent") -> None:
        self._hosts += event.kind == "host_started"
        self._bar.update(self._task, note=self._note())
        if text := host_line(event):
            self.notice(text)

    def notice(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _answered(self) -> str:
        return f"{self._done}/{self._clients} clients"

    def _note(self) -> str:
        """Of a run's failures; before its first report, of the hosts that are up."""
        if self._failed:
            return f"[red]{self._failed} failed"
        starts = self._pace.latest is not None and self._pace.latest.phase == "hosts" and not self._done
        return f"{self._hosts} host{'' if self._hosts == 1 else 's'} up" if starts else ""


SILENT = {
    "few": "says nothing: fewer answers than privacy.min_cohort",
    "not_now": "says nothing: the last rounds alone speak",
    "again": "says nothing: it was added up before, over other clients",
    "spent": "says nothing: privacy.epsilon is spent",
    "unlike": "says nothing: the clients' shares do not belong together",
}
"""Why a round of which only sums are known has no figures."""


def round_line(figures: Mapping[str, Any]) -> str:
    """A round in one line, the same on a terminal and in a log."""
    failures = ", ".join(f"{count} {status}" for status, count in figures["failures"].items())
    accuracy = figures["accuracy"]
    silent = SILENT.get(figures.get("silent", ""))
    if silent is not None:
        return f"round {figures['round']:>2}  {figures['ok']}/{figures['clients']} clients  {silent}" + (
            f"  failed: {failures}" if failures else ""
        )
    return (
        f"round {figures['round']:>2}  {figures['ok']}/{figures['clients']} "
        f"{'unseen ' if 'unseen' in figures else ''}clients  "
        f"accuracy {percent(accuracy['mean'])} (worst decile {percent(accuracy['worst_decile'])})  "
        f"MACs saved {percent(figures['saved'])}"
        + _error(figures)
        + (f"  failed: {failures}" if failures else "")
    )


def _error(figures: Mapping[str, Any]) -> str:
    """The mean absolute error, where numbers are asked for."""
    mean = figures.get("error", {}).get("mean")
    return "" if mean is None else f"  error {mean:.4g}"


def host_line(event: "HostEvent") -> str | None:
    """A lost host in one line; None for what is no trouble."""
    if event.kind not in ("host_died", "deadline_exceeded"):
        return None
    what = "died" if event.kind == "host_died" else "was ended at its deadline"
    whose = "while it started" if event.client is None else f"under client {event.client}"
    return f"a host of class {event.device_class!r} (process {event.pid}) {what} {whose}"
