"""What is due on a device in which round: worked out by hand from schedules, alarms and rounds that it missed."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fedge.device.course import Course, Due
from fedge.device.simulated import Simulated
from fedge.protocol import RoundPlan
from fedge.scenario.schedule import Detector, FinetunePruneRetrain
from fedge.scenario.training import Training


def gone(
    schedule: FinetunePruneRetrain, rounds: int, alarms: tuple[int, ...] = (), away: tuple[int, ...] = ()
) -> str:
    """A letter a round: w trained whole, W the same after it grew back, P pruned, r retrained, - stood still, . away.

    The device does as the edge client does: it prunes where its plan says so and it is whole, then trains.
    """
    simulated: Any = SimpleNamespace(detector=schedule.detector, finetune_rounds=schedule.whole_rounds)
    course, pruned, letters = Course(), False, ""
    for round in range(1, rounds + 1):
        if round in away:
            letters += "."
            continue
        phase = schedule.phase(round)
        plan = RoundPlan(
            round=round,
            phase=phase,
            prune=phase == "retrain",
            regrow=schedule.regrow(round),
            training=Training(),
        )
        due = Due(cast(Simulated, simulated), plan, course, int(round in alarms), pruned)
        pruned, course = pruned and not due.regrow, due.after
        cut = due.train and due.prune and not pruned
        if cut:
            pruned, course = True, Course(round, course.regrown, course.since)
        whole = "W" if due.regrow else "w"
        letters += "-" if not due.train else "P" if cut else "r" if pruned else whole
    return letters


ADWIN = {"then": "regrow"}


@pytest.mark.parametrize(
    ("keys", "how", "expected"),
    [
        ({}, {}, "wPrrrrrr"),
        ({"regrow_at": (5,)}, {}, "wPrrWPrr"),
        ({"regrow_at": (5,), "finetune_rounds": 2}, {}, "wwPrWwPr"),
        ({"regrow_at": (4, 7), "finetune_rounds": 0}, {}, "PrrPrrPr"),  # grows back and is cut in one round
        ({"regrow_at": (5,)}, {"away": (5,)}, "wPrr.WPr"),  # catches up
        ({"regrow_at": (5,)}, {"away": (2, 3, 4, 5)}, "w....Prr"),  # there was nothing to grow back
        ({"detector": ADWIN}, {"alarms": (4,)}, "wPrWPrrr"),
        ({"detector": ADWIN, "finetune_rounds": 2}, {"alarms": (5, 6)}, "wwPrWwPr"),  # whole already
        ({"detector": ADWIN}, {"alarms": (1,)}, "wPrrrrrr"),
        ({"detector": ADWIN, "regrow_at": (6,)}, {"alarms": (4,)}, "wPrWPWPr"),
        ({"detector": ADWIN | {"retrain_rounds": 2}}, {"alarms": (6,)}, "wPr--WPr"),
        ({"detector": {"then": "retrain", "retrain_rounds": 1}}, {"alarms": (5,)}, "wP--r---"),
        ({"detector": {"then": "retrain", "retrain_rounds": 3}}, {"alarms": (4,)}, "wPrrrr--"),
        ({"detector": {"then": "retrain", "retrain_rounds": 2}}, {"away": (1, 2)}, "..Pr----"),
    ],
)
def test_what_is_due(keys: dict[str, Any], how: dict[str, Any], expected: str) -> None:
    """Breaks if a device grows back twice for one reason, forgets to be cut again, or trains where it may rest."""
    detector = Detector(**keys.pop("detector")) if "detector" in keys else None
    assert gone(FinetunePruneRetrain(**keys, detector=detector), len(expected), **how) == expected
