"""Ctrl-C that is heard once and for all."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fedge.console.observer import Observer


class _Interruptible(Observer):
    """Passes all events on to `observer`, and raises KeyboardInterrupt at the first report after a Ctrl-C."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._stopped = False
        self.round_started = observer.round_started
        self.round_finished = observer.round_finished
        self.notice = observer.notice
        self.host_event = observer.host_event

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopped = True
        raise KeyboardInterrupt

    def report_arrived(self, row: Mapping[str, Any]) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        self._observer.report_arrived(row)


@contextmanager
def interruptible(observer: Observer) -> Iterator[Observer]:
    """Watch a run as `observer` does, and see to it that a Ctrl-C ends the run.

    Python raises KeyboardInterrupt wherever the main thread happens to be. Inside a callback out of C code (of torch's,
    say) or a finaliser it is dropped, and the run would go on as if nobody had asked: seen in about 1 of 100 runs that
    were stopped inside a training step. So it is also remembered, and raised again when the next report comes.
    Where SIGINT is ignored (nohup, a shell's background), it stays so.
    """
    watched = _Interruptible(observer)
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        yield observer
        return
    signal.signal(signal.SIGINT, watched.stop)
    try:
        yield watched
    finally:
        signal.signal(signal.SIGINT, before)
