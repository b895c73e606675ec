"""The drift detector: quiet while nothing changes, heard when errors rise, and the same after a stop."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import RunError, UserError
from fedge.training.drift_detector import Adwin


def errors(share: float, count: int, seed: int) -> list[float]:
    return (np.random.default_rng(seed).random(count) < share).astype(float).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_a_stationary_stream_sets_off_nothing(seed: int) -> None:
    """Breaks if devices prune and retrain anew for nothing: 4,000 frames, a fifth of them wrong, at delta 0.002."""
    assert Adwin(0.002).alarms(errors(0.2, 4000, seed)) == 0


def test_errors_that_rise_are_heard_soon_and_once() -> None:
    """Breaks if a device sleeps through a change of its classes, or is alarmed by it again and again."""
    detector = Adwin(0.002)
    assert detector.alarms(errors(0.1, 500, 1)) == 0
    assert detector.alarms(errors(0.9, 64, 2)) == 1  # river looks every 32 values
    assert detector.alarms(errors(0.9, 400, 3)) == 0


def test_errors_that_fall_are_no_alarm() -> None:
    """Breaks if a device that learns is told that its world has changed: it would undo what made it better."""
    detector = Adwin(0.002)
    assert detector.alarms([*errors(0.9, 500, 1), *errors(0.1, 500, 2)]) == 0
    assert detector.width < 700  # the window was cut all the same


@settings(max_examples=25, deadline=None)
@given(stop=st.integers(0, 420), seed=st.integers(0, 99))
def test_a_stop_changes_nothing(stop: int, seed: int) -> None:
    """Breaks if a run that is taken up hears other alarms: at any frame, that of a change and the one after too."""
    values = [*errors(0.1, 256, seed), *errors(0.8, 164, seed + 1)]
    whole, before = Adwin(0.01), Adwin(0.01)
    expected, first = whole.alarms(values), before.alarms(values[:stop])
    after = Adwin(0.01)
    after.load({name: tensor.clone() for name, tensor in before.tensors().items()})
    assert first + after.alarms(values[stop:]) == expected
    kept, straight = after.tensors(), whole.tensors()
    assert all(torch.equal(kept[name], straight[name]) for name in straight)


def test_a_change_of_the_network_is_a_new_beginning() -> None:
    """Breaks if the errors of a network that is gone are held against the one that grew back."""
    detector = Adwin(0.002)
    detector.alarms(errors(0.1, 500, 1))
    detector.reset()
    assert detector.alarms(errors(0.9, 500, 2)) == 0 and detector.width == 500


def test_without_river_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a missing extra ends in a traceback, or if fedge without a detector needs it."""
    monkeypatch.setitem(sys.modules, "river.drift", None)
    with pytest.raises(UserError, match=r"pip install 'fedge\[streams\]'") as refused:
        Adwin(0.002)
    assert "\n" not in str(refused.value)


def test_the_state_of_another_river_is_refused() -> None:
    """Breaks if bytes that mean something else are read as a window: the run would go on with other numbers."""
    tensors = Adwin(0.002).tensors()
    tensors["river"] = torch.frombuffer(bytearray(b"0.0.1"), dtype=torch.uint8)
    with pytest.raises(RunError, match=r"river 0\.0\.1"):
        Adwin(0.002).load(tensors)
