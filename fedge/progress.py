"""How far work is that takes a while: a phase out of a closed list, two counts and an accuracy, as four whole numbers.

Whoever works says `tell("reading")` and `advance(done, of)`, without knowing who listens, and whether in this process.
Whoever listens says `with listening(hear):`. Between processes go the four numbers and nothing else: what prepares has
data in view, and what coordinates must not.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Self

PHASES = (
    "ray",  # Ray is started, or joined
    "waiting",  # for another process that prepares the same
    "reading",
    "checking",
    "network",  # it is checked on a few samples
    "dividing",
    "writing",
    "factory",  # its model is trained; counts are thousandths of an epoch
    "prepared",  # now, for this run
    "cached",  # it had been before
    "hosts",
    "importing",  # what becomes a data folder is read
    "forecast",
    "listing",
    "clearing",
    "timing",  # steps of a fingerprint
)
EPOCH = 1000  # what a whole one counts in the phase "factory"
MOST = 10**12  # of a count

Numbers = Sequence[int]
_NO_ACCURACY = -1
_THOUSANDTHS = 1000
_PAUSE_S = 0.1  # between two words of one phase


@dataclass(frozen=True)
class Progress:
    """`done` of `of` in a phase of `PHASES`; of 0: nobody knows. accuracy: 0..1, of the factory model in training."""

    phase: str
    done: int = 0
    of: int = 0
    accuracy: float | None = None

    def numbers(self) -> tuple[int, int, int, int]:
        """What goes from one process to another; the accuracy in thousandths."""
        rounded = _NO_ACCURACY if self.accuracy is None else round(self.accuracy * _THOUSANDTHS)
        return PHASES.index(self.phase), self.done, self.of, rounded

    @classmethod
    def from_numbers(cls, numbers: object) -> Self:
        """The inverse. ValueError for anything but four whole numbers in their ranges."""
        if not isinstance(numbers, list | tuple) or [type(number) for number in numbers] != [int] * 4:
            raise ValueError("progress is four whole numbers")
        place, done, of, rounded = numbers
        most = (len(PHASES) - 1, MOST, MOST, _THOUSANDTHS)
        least = (0, 0, 0, _NO_ACCURACY)
        if not all(low <= number <= high for low, number, high in zip(least, numbers, most, strict=True)):
            raise ValueError("progress is out of its ranges")
        return cls(PHASES[place], done, of, None if rounded == _NO_ACCURACY else rounded / _THOUSANDTHS)


Hear = Callable[[Progress], None]


class _Listener:
    """Hands words on to `hear`: every new phase and every end of one, of the rest one in a tenth of a second."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self.latest: Progress | None = None
        self._told_s = 0.0

    def take(self, progress: Progress) -> None:
        news = self.latest is None or progress.phase != self.latest.phase or progress.done == progress.of
        self.latest = progress
        if news or time.monotonic() - self._told_s >= _PAUSE_S:
            self._told_s = time.monotonic()
            self._hear(progress)


_listener: ContextVar[_Listener | None] = ContextVar("progress", default=None)


@contextmanager
def listening(hear: Hear | None) -> Iterator[None]:
    """`hear` is told of what goes on inside; None: whoever listens already."""
    if hear is None:
        yield
        return
    token = _listener.set(_Listener(hear))
    try:
        yield
    finally:
        _listener.reset(token)


def tell(phase: str, done: int = 0, of: int = 0, accuracy: float | None = None) -> None:
    """Say what goes on now. Nothing happens where nobody listens."""
    if listener := _listener.get():
        listener.take(Progress(phase, min(done, MOST), min(of, MOST), accuracy))


def latest_accuracy() -> float | None:
    """What was told last of it."""
    listener = _listener.get()
    return listener.latest.accuracy if listener and listener.latest else None


def advance(done: int, of: int) -> None:
    """Say how far the present phase is; its accuracy stays what it was."""
    listener = _listener.get()
    if listener and listener.latest:
        listener.take(replace(listener.latest, done=min(done, MOST), of=min(of, MOST)))
