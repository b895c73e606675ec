"""What a person is told before the first round, on a terminal and in a log."""

import io
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from fedge.console import progress as module
from fedge.console.phases import Pace, counts, ending, seconds
from fedge.console.progress import LiveProgress, PlainProgress
from fedge.engine.pool import HostEvent
from fedge.progress import EPOCH, PHASES, Progress

ROUND = {
    "round": 1,
    "ok": 2,
    "clients": 2,
    "accuracy": {"mean": 0.5, "worst_decile": 0.5},
    "saved": 0.5,
    "failures": {},
}
UP = HostEvent("host_started", "jetson-nano", "node", 7)


class Clock:
    """Time that passes when a test says so; timers ring then."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def timer(self, delay_s: float, ring: Callable[[], None]) -> SimpleNamespace:
        """In the place of threading.Timer."""
        entry = self.now_s + delay_s, ring
        return SimpleNamespace(
            start=lambda: self._timers.append(entry),
            cancel=lambda: entry in self._timers and self._timers.remove(entry),
        )

    def passes(self, time_s: float) -> None:
        self.now_s += time_s
        for entry in [entry for entry in self._timers if entry[0] <= self.now_s]:
            self._timers.remove(entry)
            entry[1]()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "threading", SimpleNamespace(Timer=clock.timer, Lock=threading.Lock))
    monkeypatch.setattr(time, "monotonic", lambda: clock.now_s)
    return clock


@pytest.fixture
def plain(clock: Clock) -> Iterator[tuple[PlainProgress, Callable[[], list[str]]]]:
    """A log, and its lines so far."""
    stream = io.StringIO()
    with PlainProgress(stream) as watching:
        yield watching, lambda: stream.getvalue().splitlines()


def test_every_phase_has_words() -> None:
    """Breaks if a phase that is added ends a run with a KeyError, in whoever only watches."""
    for phase in PHASES:
        pace = Pace()
        pace.take(Progress(phase, 1, 3, 0.5))
        assert ending(Progress(phase), 1.0) or pace.line()


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (Progress("factory", 0, 5 * EPOCH), "epoch 1/5"),
        (Progress("factory", 2 * EPOCH + 1, 5 * EPOCH), "epoch 3/5"),
        (Progress("factory", 5 * EPOCH, 5 * EPOCH), "epoch 5/5"),
        (Progress("factory"), ""),  # no epoch is asked for
        (Progress("checking", 12_345, 50_000), "24%"),
        (Progress("importing", 1200, 5000), "1,200/5,000"),
        (Progress("importing", 1200), "1,200"),
        (Progress("ray"), ""),
    ],
)
def test_counts_in_the_phase_s_own_unit(word: Progress, text: str) -> None:
    """Breaks if epochs are counted wrongly, or if an unknown end shows as 0%."""
    assert counts(word) == text


def test_time_left_is_that_of_the_phase(clock) -> None:
    """Breaks if the time that Ray took is counted as the factory's pace."""
    pace = Pace()
    pace.take(Progress("ray"))
    clock.passes(50)
    pace.take(Progress("factory", 0, 4 * EPOCH))
    assert pace.left_s() is None
    clock.passes(10)
    pace.take(Progress("factory", EPOCH, 4 * EPOCH, 0.5))
    assert pace.left_s() == pytest.approx(30)
    assert pace.line() == "factory model  epoch 2/4  accuracy 50.0%  30 s left"
    assert pace.took_s == pytest.approx(10)


def test_seconds_as_people_say_them() -> None:
    """Breaks if an hour is told in seconds."""
    assert [seconds(s) for s in (0.42, 12, 75, 7300)] == ["0.4 s", "12 s", "1 min 15 s", "2 h 1 min"]


def test_a_log_tells_of_what_takes_a_while_and_of_nothing_else(plain, clock) -> None:
    """Breaks if a log is silent for minutes, or filled with phases that were over at once."""
    watching, lines = plain
    watching.progress(Progress("reading"))
    clock.passes(2)
    watching.progress(Progress("dividing"))
    watching.progress(Progress("factory", 0, 3 * EPOCH))
    clock.passes(0.9)
    watching.progress(Progress("factory", EPOCH, 3 * EPOCH, 0.25))
    assert lines() == []
    clock.passes(0.2)
    assert lines() == [
        "reading data 2.0 s, dividing data 0.0 s",
        "factory model  epoch 2/3  accuracy 25.0%  2.2 s left",
    ]
    watching.progress(Progress("factory", 2 * EPOCH, 3 * EPOCH, 0.5))  # too soon for another
    clock.passes(9)
    watching.progress(Progress("factory", 2 * EPOCH + 400, 3 * EPOCH, 0.5))
    assert len(lines()) == 2
    clock.passes(2)
    watching.progress(Progress("factory", 2 * EPOCH + 500, 3 * EPOCH, 0.5))
    assert lines()[2:] == ["factory model  epoch 3/3  accuracy 50.0%  2.4 s left"]
    watching.progress(Progress("prepared", accuracy=0.75))
    clock.passes(60)
    assert len(lines()) == 3  # the client program may be wrong, which is one line
    watching.report_arrived({"client": 0, "status": "ok"})
    assert lines()[3:] == ["data and factory model prepared in 14 s, training accuracy 75.0%"]


def test_a_log_tells_of_hosts_that_start_until_the_first_report(plain, clock) -> None:
    """Breaks if nobody knows why nothing comes while hosts start, or if it is told when all goes well."""
    watching, lines = plain
    watching.progress(Progress("hosts"))
    watching.host_event(UP)
    clock.passes(11)
    assert lines() == ["starting hosts  1 up"]
    watching.progress(Progress("dividing"))
    watching.progress(Progress("hosts"))
    watching.report_arrived({"client": 0, "status": "ok"})
    clock.passes(60)
    assert len(lines()) == 1


def test_a_prepared_run_says_so(plain) -> None:
    """Breaks if a person looks for a training that was skipped."""
    watching, lines = plain
    watching.progress(Progress("cached"))
    watching.round_finished(ROUND)
    assert lines()[:-1] == ["data and factory model were prepared before: taken from the cache"]


def test_wrong_input_is_one_line_unless_it_takes_long(plain, clock) -> None:
    """Breaks if a log of a mistake begins with what went well before it, or if a long reading looks like a hang."""
    watching, lines = plain
    for phase in ("ray", "reading", "checking"):
        watching.progress(Progress(phase))
        clock.passes(9)
    watching.progress(Progress("checking", 1, 4))
    assert lines() == []
    clock.passes(2)
    assert lines() == ["checking data  25%  33 s left"]


def test_the_bar_shows_the_factory_model_in_80_characters() -> None:
    """Breaks if epoch, accuracy or time end in an ellipsis in an ordinary window, or in `round 0`."""
    screen = io.StringIO()
    with LiveProgress(Console(file=screen, width=80, force_terminal=True), rounds=12) as live:
        for phase in PHASES:
            live.progress(Progress(phase))
        live.progress(Progress("factory", 99 * EPOCH, 160 * EPOCH, 0.812))
    shown = screen.getvalue()
    assert "factory model" in shown and "epoch 100/160" in shown and "81.2% right" in shown
    assert "round 0" not in shown
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown


def test_the_bar_counts_hosts_until_the_first_report() -> None:
    """Breaks if hosts that start cannot be told from a run that hangs."""
    screen = io.StringIO()
    with LiveProgress(Console(file=screen, width=80, force_terminal=True), rounds=2) as live:
        live.progress(Progress("hosts"))
        live.round_started(1, 3)
        live.host_event(UP)
        live._bar.refresh()
        assert "1 host up" in screen.getvalue()
        live.report_arrived({"status": "ok"})
        screen.truncate(0)
        live._bar.refresh()
        assert "hosts up" not in screen.getvalue() and "1/3 clients" in screen.getvalue()


def on_a_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """What a command shows on a terminal of its own, and its exit code."""
    here, there = pty.openpty()
    with subprocess.Popen(
        command, stdin=there, stdout=there, stderr=there, env=environment, close_fds=True
    ) as process:
        os.close(there)
        shown = bytearray()
        while True:
            try:
                piece = os.read(here, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
            if not piece:
                break
            shown += piece
    os.close(here)
    return process.returncode, shown.decode(errors="replace")


FEW = [part for index in range(3) for part in ("--set", f"fleet.{index}.count=1")]
CHANGES = ["rounds=1", "training.epochs=1", "schedule={kind='train_only'}", "model.factory.epochs=40"]
SHORT = ["--engine", "inline", *(part for change in CHANGES for part in ("--set", change))]


@pytest.mark.long
@pytest.mark.parametrize("quiet", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_on_a_terminal(tmp_path: Path, quiet: bool) -> None:
    """Breaks if minutes of factory training show `round 0/5`, if a cached run does not say so, or if --quiet speaks."""
    command = [sys.executable, "-m", "fedge", "run", "quickstart", *SHORT, *FEW, "--out", str(tmp_path / "r")]
    command += ["--quiet"] if quiet else []
    environment = os.environ | {"FEDGE_CACHE": str(tmp_path / "cache"), "TERM": "xterm", "COLUMNS": "80"}
    code, shown = on_a_terminal(command, environment)
    assert code == 0, shown
    if quiet:
        assert shown == ""
        return
    assert "factory model" in shown and "/40" in shown and "right" in shown
    assert "data and factory model prepared in" in shown
    assert "round 0" not in shown and "\N{HORIZONTAL ELLIPSIS}" not in shown
    again = on_a_terminal(command, environment)[1]
    assert "prepared before: taken from the cache" in again and "epoch" not in again


ROWS = """
import time
import numpy as np

def rows():
    for number in range(40):
        time.sleep(0.02)
        yield np.full((1, 2, 2), number % 2, np.uint8), number % 2
"""


def test_an_import_on_a_terminal_counts_what_it_reads(tmp_path: Path) -> None:
    """Breaks if an import of an hour shows nothing, or a log of it gets lines that nobody needs."""
    (tmp_path / "mydata.py").write_text(ROWS)
    command = [sys.executable, "-m", "fedge", "import", "program", str(tmp_path / "mydata.py"), "--out"]
    code, shown = on_a_terminal(
        [*command, str(tmp_path / "a")], os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    )
    assert code == 0, shown
    assert "importing" in shown and "40 samples" in shown
    done = subprocess.run([*command, str(tmp_path / "b")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)
