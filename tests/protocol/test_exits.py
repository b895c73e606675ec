"""Whether a report's counts of exits can be true."""

from typing import Any

import pytest

from fedge.protocol.agreement import can_be
from fedge.protocol.report import RoundReport

SOUND: dict[str, Any] = {
    "round": 1, "client": 0, "test_count": 10, "test_correct": 7, "test_gained": 7,
    "exit_left": [4, 6], "exit_right": [3, 4], "exit_alone": [6, 8], "exit_macs": [50, 120], "trunk_macs": 100,
    "answer_s": 0.1, "answer_worst_s": 0.2,
}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"exit_left": [4, 5]},  # one sample leaves nowhere
        {"exit_right": [3, 3]},  # not the answers that the network gave
        {"exit_right": [5, 2]},  # more right than left there
        {"exit_alone": [2, 8]},  # fewer right on all samples than on some of them
        {"exit_macs": [120, 50]},  # going further is cheaper
        {"exit_alone": [6, 8, 9]},
        {"answer_s": None},
    ],
)
def test_counts_that_cannot_be(wrong: dict[str, Any]) -> None:
    """Would break if a report that contradicts itself were taken in."""
    assert can_be(RoundReport(**SOUND), frames=None, exits=4)
    assert not can_be(RoundReport(**SOUND | wrong), frames=None, exits=4)


def test_exits_are_told_of_where_there_are_any() -> None:
    """Would break if a program could send the lists of a scenario without exits, or leave them out of one with."""
    without = {key: value for key, value in SOUND.items() if not key.startswith(("exit", "answer", "trunk"))}
    assert not can_be(RoundReport(**SOUND), frames=None)
    assert can_be(RoundReport(**without), frames=None) and not can_be(
        RoundReport(**without), frames=None, exits=4
    )
