"""Ctrl-C and SIGTERM, also where Python drops them."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from fedge.console.interrupt import Stopped, interruptible
from fedge.console.observer import Observer
from fedge.progress import Progress


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """As a person's shell leaves them: a suite that was started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, fatal)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


def fatal(number: int, frame: object) -> None:
    raise AssertionError("the suite would have ended here")


class Seen(Observer):
    def __init__(self) -> None:
        self.events: list[object] = []

    def progress(self, progress: object) -> None:
        self.events.append(progress)

    def round_started(self, round: int, clients: int) -> None:
        self.events.append((round, clients))

    def report_arrived(self, row: object) -> None:
        self.events.append(row)

    def round_finished(self, figures: object) -> None:
        self.events.append(figures)

    def notice(self, text: str) -> None:
        self.events.append(text)

    def host_event(self, event: object) -> None:
        self.events.append(event)


def test_a_dropped_signal_stops_preparation_at_its_next_word() -> None:
    """Breaks if a Ctrl-C that C code swallowed lets an hour of factory training go on."""
    with interruptible(Seen()) as observer:
        observer.progress(Progress("reading"))
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped):
            observer.progress(Progress("dividing"))


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_dropped_signal_stops_the_run_at_the_next_report(number: signal.Signals, exit_code: int) -> None:
    """Breaks if a Ctrl-C, or a job's end, that C code swallowed is lost: the run would go on for hours."""
    seen = Seen()
    with interruptible(seen) as observer:
        observer.report_arrived({"client": 0})
        with suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        observer.host_event("released")  # hosts that end because of it must end
        with pytest.raises(Stopped) as stopped:
            observer.report_arrived({"client": 1})
    assert stopped.value.exit_code == exit_code
    assert seen.events == [{"client": 0}, "released"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is fatal


def test_without_ctrl_c_every_event_arrives() -> None:
    """Breaks if an event is lost on its way to what a person watches."""
    seen = Seen()
    with interruptible(seen) as observer:
        observer.progress(Progress("ray"))
        observer.round_started(1, 5)
        observer.report_arrived({"client": 3})
        observer.round_finished({"round": 1})
        observer.notice("text")
        observer.host_event("started")
    assert seen.events == [Progress("ray"), (1, 5), {"client": 3}, {"round": 1}, "text", "started"]


def test_a_run_in_the_background_is_not_stopped_by_ctrl_c() -> None:
    """Breaks if a run under nohup ends with the Ctrl-C that was meant for another program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible(Seen()):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("came", [KeyboardInterrupt(), RuntimeError("a host ended"), SystemExit(1)])
def test_what_other_code_makes_of_a_signal_is_still_a_stop(came: BaseException) -> None:
    """Breaks if a SIGTERM that Ray's C++ turned into a KeyboardInterrupt ends in 130 without a word of --resume."""
    with pytest.raises(Stopped) as stopped, interruptible(Seen()):
        with suppress(Stopped):
            signal.raise_signal(signal.SIGTERM)
        raise came
    assert stopped.value.exit_code == 143


def test_what_nobody_stopped_ends_as_it_would() -> None:
    """Breaks if a failed run passes for one that was stopped, or an interrupt that no signal made has no last line."""
    with pytest.raises(RuntimeError, match="failed"), interruptible(Seen()):
        raise RuntimeError("failed")
    with pytest.raises(Stopped) as stopped, interruptible(Seen()):
        raise KeyboardInterrupt
    assert stopped.value.exit_code == 130


def test_a_signal_that_python_drops_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a run that is stopped inside a finaliser ends in a traceback; others' errors must still show."""

    class Finalised:
        def __init__(self, fail: Callable[[], None]) -> None:
            self.fail = fail

        def __del__(self) -> None:
            self.fail()

    def other() -> None:
        raise ValueError("of someone else's")

    hook = sys.unraisablehook
    sys.unraisablehook = sys.__unraisablehook__  # pytest's own would collect them
    try:
        with suppress(Stopped), interruptible(Seen()):
            Finalised(lambda: signal.raise_signal(signal.SIGTERM))
            assert capsys.readouterr().err == ""
            Finalised(other)
            assert "of someone else's" in capsys.readouterr().err
        assert sys.unraisablehook is sys.__unraisablehook__
    finally:
        sys.unraisablehook = hook
