"""What a schedule may say of detectors and regrowth, and what makes no sense is refused in one line."""

import pytest

from fedge.coordinator.schedule import plan_round
from fedge.errors import UserError

STREAM = "data.stream.rate_per_h=60"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["schedule.detector.then=regrow"], "there is none: add [data.stream]"),
        ([STREAM, "schedule.detector.delta=0.1"], "schedule.detector.then"),
        ([STREAM, "schedule.detector.then=retrain"], "retrain_rounds is left out"),
        ([STREAM, "schedule.detector={then='regrow', delta=1.0}"], "delta"),
        ([STREAM, "schedule.detector={then='regrow', kind='adwim'}"], "adwin"),
        ([STREAM, "schedule={kind='train_only', detector={then='regrow'}}"], "prunes nothing"),
        ([STREAM, "schedule.detector.then=regrow", "training.pruning.level=0"], "nothing is cut"),
        (["schedule.regrow_at=[4]", "training.pruning.level=0"], "nothing is cut"),
        (["schedule={kind='train_only', regrow_at=[4]}"], "regrow_at"),
        (["schedule.regrow_at=[2]"], "give rounds above 2"),
        (["schedule.regrow_at=[4, 4]"], "give rounds above 5"),
        (["schedule.regrow_at=[5, 3]"], "rising order"),
        (["schedule.regrow_at=[6]"], "raise rounds, or regrow earlier"),
        (["schedule.regrow_at=[9]"], "raise rounds, or regrow earlier"),
        (["schedule.regrow_weights=old"], "trained"),
    ],
)
def test_what_makes_no_sense_is_refused(small, changes: list[str], said: str) -> None:
    """Breaks if a detector without a stream, or a regrowth of what is never cut, runs for hours and does nothing."""
    with pytest.raises(UserError) as refused:
        small("rounds=6", *changes)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_class_that_is_pruned_is_enough(small) -> None:
    """Breaks if a fleet in which only some devices are pruned cannot regrow."""
    small(
        "rounds=6",
        "training.pruning.level=0",
        "fleet.0.training={pruning={level=0.5}}",
        "schedule.regrow_at=[4]",
    )


def test_a_schedule_begins_anew(small) -> None:
    """Breaks if the round of a regrowth is not fine-tuned, or if a device that missed it is never told again."""
    scenario = small("rounds=9", "schedule.finetune_rounds=2", "schedule.regrow_at=[5]")
    plans = [plan_round(scenario, round) for round in range(1, 10)]
    assert "".join("f" if plan.phase == "finetune" else "r" for plan in plans) == "ffrrffrrr"
    assert [plan.prune for plan in plans] == [plan.phase == "retrain" for plan in plans]
    assert [plan.regrow for plan in plans] == [0, 0, 0, 0, 5, 5, 5, 5, 5]


def test_a_plan_that_asks_for_none_weighs_as_before(small) -> None:
    """Breaks if every scenario pays, in bytes and seconds, for a field that only some have."""
    record = next(iter(plan_round(small(), 1).content().config_records.values()))
    assert '"regrow":' not in str(record["json"])
    later = plan_round(small("rounds=6", "schedule.regrow_at=[4]"), 4)
    assert '"regrow":4' in str(next(iter(later.content().config_records.values()))["json"])
