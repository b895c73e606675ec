"""Ctrl-C and SIGTERM (Slurm, Docker, systemd) that are heard once and for all."""

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fedge.console.observer import Observer
from fedge.progress import Progress

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal asked the run to end; `exit_code` is what shells make of it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number


class _Interruptible(Observer):
    """Passes all events on to `observer`, and raises Stopped at the first report or word of progress after a signal."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.signal: int | None = None
        self.run_started = observer.run_started  # type: ignore[method-assign]
        self.run_finished = observer.run_finished  # type: ignore[method-assign]
        self.round_started = observer.round_started  # type: ignore[method-assign]
        self.round_finished = observer.round_finished  # type: ignore[method-assign]
        self.notice = observer.notice  # type: ignore[method-assign]
        self.host_event = observer.host_event  # type: ignore[method-assign]

    def stop(self, signal_number: int, _frame: FrameType | None) -> None:
        self.signal = signal_number
        raise Stopped(signal_number)

    def progress(self, progress: Progress) -> None:
        if self.signal is not None:
            raise Stopped(self.signal)
        self._observer.progress(progress)

    def report_arrived(self, row: Mapping[str, Any]) -> None:
        if self.signal is not None:
            raise Stopped(self.signal)
        self._observer.report_arrived(row)


@contextmanager
def interruptible(observer: Observer) -> Iterator[Observer]:
    """Watch a run as `observer` does, and see to it that a Ctrl-C or a SIGTERM ends the run: by Stopped.

    Python raises wherever the main thread happens to be. Inside a callback out of C code (of torch's, say) or a
    finaliser it is dropped, and the run would go on as if nobody had asked: seen in about 1 of 100 runs that were
    stopped inside a training step. So it is also remembered, and raised again when the next report or word of progress
    comes; what Python would print of the one that it dropped is kept back.
    Ray's C++ makes a plain KeyboardInterrupt of it, which has forgotten the signal, and what is being ended may fail in
    other ways: after a signal all of it is Stopped.
    A signal that is ignored (SIGINT under nohup or in a shell's background) stays so.
    """
    watched = _Interruptible(observer)
    before, print_unraisable = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    heard = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, watched.stop)
    sys.unraisablehook = lambda dropped: None if dropped.exc_type is Stopped else print_unraisable(dropped)
    try:
        yield watched
    except Stopped:
        raise
    except BaseException as error:
        if watched.signal is None and not isinstance(error, KeyboardInterrupt):
            raise
        raise Stopped(watched.signal or signal.SIGINT) from error
    finally:
        for number in heard:
            signal.signal(number, before[number])
        sys.unraisablehook = print_unraisable
