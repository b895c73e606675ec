"""Whether the counts of one report can all be true: what neither types nor ranges tell."""

from collections.abc import Mapping
from typing import Any

from fedge.protocol.report import EXIT_FIELDS, STREAM_FIELDS, RoundReport


def can_be(report: RoundReport, *, frames: int | None, detecting: bool = False, exits: int = 0) -> bool:
    """frames: the most that a stream has brought; None: no stream. detecting: whether devices look for drift in it.
    exits: how many a network has at most, the last among them; 0: none."""
    agree = counts_agree(report.row(), frames, detecting)
    return agree and tallies_agree(report) and exits_agree(report, exits)


def exits_agree(report: RoundReport, exits: int) -> bool:
    """Whether its counts of exits can be: every test sample leaves at one of them, where there are any at all."""
    held = [getattr(report, name) for name in EXIT_FIELDS]
    if not exits:
        return held == [None] * len(EXIT_FIELDS)
    if None in held:
        return False
    left, right, alone, macs = held[:4]
    return (
        2 <= len(left) <= exits
        and len(left) == len(right) == len(alone) == len(macs)
        and sum(left) == report.test_count
        and sum(right) == report.test_correct
        and all(one <= of <= report.test_count for one, of in zip(right, alone, strict=True))
        and all(one <= of for one, of in zip(right, left, strict=True))
        and macs == sorted(macs)
    )


def tallies_agree(report: RoundReport) -> bool:
    """No more right answers than questions, no more kept than seen; gained and lost explain the difference."""
    per_sample = report.decisions or 1
    asked = report.test_count * per_sample
    return (
        report.samples_kept <= report.samples_seen
        and report.test_correct <= asked
        and report.factory_correct <= asked
        and report.told_correct <= asked
        and report.test_gained - report.test_lost == report.test_correct - report.factory_correct
        and report.test_lost <= report.factory_correct <= asked - report.test_gained
        and (report.served or 0) <= report.round
        and report.validation_correct <= report.validation_count * per_sample
        and (report.test_better or 0) + (report.test_worse or 0) <= report.test_count
    )


def counts_agree(report: Mapping[str, Any], frames: int | None, detecting: bool = False) -> bool:
    """Whether a report's counts can be: no more right than asked, no more labelled than came, no more asked than can
    have come; none without a stream, alarms where drift is looked for alone."""
    if ("alarms" in report) is not detecting:
        return False
    held: list[int] = [report[name] for name in STREAM_FIELDS if name in report]
    if len(held) != len(STREAM_FIELDS) * (frames is not None):
        return False
    if frames is None:
        return True
    arrived, labelled, stored, trained, ttt, asked, blind, future, of_future, past, of_past = held
    return (
        ttt <= asked <= labelled <= arrived
        and blind <= asked
        and trained <= stored
        and future <= of_future
        and past <= of_past
        and max(arrived, of_future, of_past) <= frames
    )
