"""A stream does not wait: a round's training ends when the next round begins, whatever the plan still asks for.

What a step costs is known when it is done. So a step is begun where one as long as the step before would end in time;
the first step is always begun.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Pace:
    """`limit_s`: virtual seconds for computing; `spent_s`: says how many are gone."""

    def __init__(self, limit_s: float, spent_s: Callable[[], float]) -> None:
        self._limit_s, self._spent_s = limit_s, spent_s
        self._last_s = 0.0
        self._began_s: float | None = None

    def keeps(self) -> bool:
        """Whether one step more ends in time."""
        now_s = self._spent_s()
        if self._began_s is None:
            self._began_s = now_s
            return True
        if now_s > self._began_s:
            self._last_s = now_s - self._began_s
        self._began_s = now_s
        return now_s + self._last_s <= self._limit_s

    def within(self, batches: Iterator[T]) -> Iterator[T]:
        """The batches, as long as there is time for one more."""
        while self.keeps():
            try:
                yield next(batches)
            except StopIteration:
                return
