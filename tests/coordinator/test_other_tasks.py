"""Fleet figures where labels or numbers are asked for, by hand."""

import pytest

from fedge.coordinator.metrics import accuracy, errors
from fedge.coordinator.paired import gain, hurt
from fedge.protocol import RoundReport
from fedge.protocol.agreement import tallies_agree

LABELS = [  # of 4 labels per sample: 10 and 20 samples
    {"test_count": 10, "decisions": 4, "test_correct": 30, "factory_correct": 20, "test_gained": 12, "test_lost": 2,
     "test_better": 8, "test_worse": 1},
    {"test_count": 20, "decisions": 4, "test_correct": 40, "factory_correct": 48, "test_gained": 0, "test_lost": 8,
     "test_better": 0, "test_worse": 2},
]  # fmt: skip
NUMBERS = [
    {"test_count": 10, "test_correct": 5, "factory_correct": 4, "test_gained": 1, "test_lost": 0,
     "test_error_sum": 5.0, "factory_error_sum": 20.0, "test_better": 9, "test_worse": 1},
    {"test_count": 5, "test_correct": 5, "factory_correct": 5, "test_gained": 0, "test_lost": 0,
     "test_error_sum": 10.0, "factory_error_sum": 5.0, "test_better": 0, "test_worse": 5},
]  # fmt: skip


def test_accuracy_of_labels_is_the_share_of_right_decisions() -> None:
    """Breaks if four labels per sample make an accuracy of 300 %, or the classes are told where there are none."""
    found = accuracy(LABELS)
    assert (found["mean"], found["factory"], found["told"]) == ((0.75 + 0.5) / 2, (0.5 + 0.6) / 2, None)
    gained = gain(LABELS, seed=1)
    assert gained["mean"] == pytest.approx((0.25 - 0.1) / 2) and gained["over_told"] is None
    assert "error" not in gained and errors(LABELS) == {}


def test_labels_hurt_by_samples_and_not_by_labels() -> None:
    """Breaks if eight labels lost in two samples count as eight independent losses: that would be beyond chance."""
    assert hurt(LABELS) == {"any": 0.5, "beyond_chance": 0.0}
    many = LABELS[1] | {"test_better": 0, "test_worse": 5}
    assert hurt([LABELS[0], many]) == {"any": 0.5, "beyond_chance": 0.5}


def test_errors_are_means_over_clients_with_the_largest_as_the_worst() -> None:
    """Breaks if sums are not divided by samples, or the worst decile of an error is the best."""
    found = errors(NUMBERS)["error"]
    assert (found["mean"], found["factory"], found["worst_decile"]) == (1.25, 1.5, 2.0)
    assert (found["min"], found["max"], found["clients"]) == (0.5, 2.0, 2)
    saved = gain(NUMBERS, seed=1)["error"]
    assert saved["mean"] == pytest.approx((1.5 - 1.0) / 2) and saved["worst_decile"] == -1.0


def test_numbers_hurt_by_their_error() -> None:
    """Breaks if a client whose answers are all within tolerance, and twice as far off as before, is not hurt."""
    assert hurt(NUMBERS) == {"any": 0.5, "beyond_chance": 0.5}


@pytest.mark.parametrize(
    ("change", "agrees"),
    [
        ({}, True),
        ({"test_correct": 41, "test_gained": 23}, False),  # of 40
        ({"validation_correct": 9, "validation_count": 2}, False),
        ({"validation_correct": 8, "validation_count": 2}, True),
        ({"test_better": 10}, False),  # 10 + 1 of 10 samples
        ({"decisions": None}, False),  # 30 of 10
    ],
)
def test_tallies_of_labels_agree(change: dict, agrees: bool) -> None:
    """Breaks if a report that cannot be is counted, or a right one of labels is called corrupt."""
    assert tallies_agree(RoundReport(round=1, client=0, **(LABELS[0] | change))) is agrees


def test_what_is_not_asked_is_not_sent() -> None:
    """Breaks if reports of classes grow by fields of other tasks, or a field is not in the budget of bits."""
    plain, of_numbers = RoundReport(round=1, client=0), RoundReport(round=1, client=0, **NUMBERS[0])
    assert "test_error_sum" not in plain.content()["report"] and "loss" not in plain.content()["report"]
    assert of_numbers.content()["report"]["test_error_sum"] == 5.0
    assert RoundReport.from_record(of_numbers.content()["report"]) == of_numbers
    assert "told_correct" in plain.row() and "told_correct" not in of_numbers.row()
    assert "loss" not in plain.row() and RoundReport(round=1, client=0, loss=1).row()["loss"] == "own"
