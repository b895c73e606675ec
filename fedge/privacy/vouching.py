"""The device's word for a report: what leaves is what fedge's device made of the round, not what a program returns.

The gate opens a place for the report of one message, `on_device` puts there what it has made, and the gate sends that.
So a program that makes a report of its own, or changes the device's on the way out, sends nothing of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fedge.protocol.report import RoundReport

_place: ContextVar[list[RoundReport] | None] = ContextVar("vouched", default=None)


@contextmanager
def vouching() -> Iterator[list[RoundReport]]:
    """For the time of one message: the reports that the device vouches for meanwhile, in the order in which it does."""
    made: list[RoundReport] = []
    token = _place.set(made)
    try:
        yield made
    finally:
        _place.reset(token)


def vouch(report: RoundReport) -> RoundReport:
    """Say that the device made this report; the same report. Without a gate around it nobody hears."""
    place = _place.get()
    if place is not None:
        place.append(report)
    return report
