"""What a person watches while a run goes on: a live bar on a terminal, plain lines anywhere else."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedge.console.observer import Observer

if TYPE_CHECKING:
    from fedge.engine.pool import HostEvent


class PlainProgress(Observer):
    """One line per round, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def round_finished(self, figures: Mapping[str, Any]) -> None:
        self.notice(round_line(figures))

    def host_event(self, event: "HostEvent") -> None:
        if text := host_line(event):
            self.notice(text)

    def notice(self, text: str) -> None:
        print(text, file=self._stream or sys.stderr, flush=True)


class LiveProgress(Observer):
    """A bar over all messages of the run, below a line per finished round; both fit 80 characters.

    A context manager: the bar is drawn while it is entered.
    """

    def __init__(self, console: Console, rounds: int) -> None:
        self._rounds = rounds
        self._bar = Progress(
            TextColumn("[bold]round {task.fields[round]}/" + str(rounds)),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[done]}/{task.fields[clients]} clients"),
            TextColumn("{task.fields[failed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("run", total=None, round=0, done=0, clients=0, failed="")
        self._done = self._failed = 0

    def __enter__(self) -> "LiveProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def round_started(self, round: int, clients: int) -> None:
        self._done = 0
        self._bar.update(
            self._task,
            total=clients * self._rounds,
            completed=clients * (round - 1),
            round=round,
            clients=clients,
            done=0,
        )

    def report_arrived(self, row: Mapping[str, Any]) -> None:
        self._done += 1
        self._failed += row["status"] != "ok"
        failed = f"[red]{self._failed} failed" if self._failed else ""
        self._bar.update(self._task, advance=1, done=self._done, failed=failed)

    def round_finished(self, figures: Mapping[str, Any]) -> None:
        self.notice(round_line(figures))

    def host_event(self, event: "HostEvent") -> None:
        if text := host_line(event):
            self.notice(text)

    def notice(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)


def round_line(figures: Mapping[str, Any]) -> str:
    """A round in one line, the same on a terminal and in a log."""
    failures = ", ".join(f"{count} {status}" for status, count in figures["failures"].items())
    accuracy = figures["accuracy"]
    return (
        f"round {figures['round']:>2}  {figures['ok']}/{figures['clients']} clients  "
        f"accuracy {percent(accuracy['mean'])} (worst decile {percent(accuracy['worst_decile'])})  "
        f"MACs saved {percent(figures['saved'])}" + (f"  failed: {failures}" if failures else "")
    )


def host_line(event: "HostEvent") -> str | None:
    """A lost host in one line; None for what is no trouble."""
    if event.kind not in ("host_died", "deadline_exceeded"):
        return None
    what = "died" if event.kind == "host_died" else "was ended at its deadline"
    whose = "while it started" if event.client is None else f"under client {event.client}"
    return f"a host of class {event.device_class!r} (process {event.pid}) {what} {whose}"


def percent(share: float | None) -> str:
    """0.8312 as "83.1%"; a dash where there is no figure."""
    return "-" if share is None else f"{100 * share:.1f}%"
