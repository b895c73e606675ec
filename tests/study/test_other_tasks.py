"""Studies of labels and of numbers: what one client had, from its reports alone."""

import numpy as np
import pytest

import fedge
from fedge.errors import UserError
from fedge.study.cells import cells_of
from fedge.study.outcome import outcomes
from fedge.study.study import Study
from fedge.study.summary import hurt
from tests.data.own.folders import scenario

ROW = {"status": "ok", "client": 0, "device": "pi", "macs_done": 5, "energy_j": 1.0, "test_count": 10,
       "validation_count": 4, "test_gained": 1, "test_lost": 0}  # fmt: skip
LABELS = ROW | {"decisions": 3, "test_correct": 24, "factory_correct": 15, "validation_correct": 9, "test_better": 4,
                "test_worse": 1}  # fmt: skip
NUMBERS = ROW | {"test_correct": 5, "factory_correct": 4, "validation_correct": 2, "test_better": 0, "test_worse": 10,
                 "test_error_sum": 30.0, "factory_error_sum": 10.0}  # fmt: skip


def test_labels_are_shares_of_decisions() -> None:
    """Breaks if three labels per sample make an accuracy of 240 %."""
    (outcome,) = outcomes([LABELS | {"round": 1}], "last")
    assert (outcome.accuracy, outcome.factory, outcome.told) == (0.8, 0.5, None)
    assert (outcome.gained, outcome.lost) == (4, 1)


def test_numbers_are_chosen_and_hurt_by_their_error() -> None:
    """Breaks if the round of the most answers within tolerance is chosen, and nobody is hurt by a larger error."""
    first = NUMBERS | {"round": 1, "validation_error_sum": 2.0}
    second = NUMBERS | {"round": 2, "validation_error_sum": 3.0, "validation_correct": 4}
    (outcome,) = outcomes([first, second], "validation")
    assert outcome.round == 1 and outcome.error_sum == 30.0
    assert hurt([outcome]) == {"any": 1.0, "beyond_chance": 1.0}


def test_nobody_is_told_labels(tmp_path) -> None:
    """Breaks if a study runs for hours and then has nothing to compare with."""
    y = (np.arange(60)[:, None] >> np.arange(3) & 1).astype(np.uint8)
    fedge.write_dataset(tmp_path / "mine", np.zeros((60, 16, 16), np.uint8), y)
    scenario(tmp_path / "s.toml", "mine")
    study = Study(scenario="s.toml", baseline="told", arms={"one": {}})
    with pytest.raises(UserError, match="baseline is 'told', and the data's task is 'labels'"):
        cells_of(study, tmp_path)
