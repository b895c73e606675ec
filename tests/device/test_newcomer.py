"""A device whose first round comes after all others (`schedule.unseen`)."""

from collections.abc import Callable

import pytest

from fedge.device.device import Device


@pytest.mark.parametrize("round", [1, 3])
def test_a_rate_that_falls_over_the_run_falls_over_its_one_round(
    opened: Callable[..., Device], round: int
) -> None:
    """Breaks if a client that comes when the rate has fallen to nothing learns nothing."""
    device = opened("rounds=2", "training.decay={kind='cosine'}", round=round)
    span = device._round.local.span(0, of=1)
    assert (span["start"], span["end"]) == ((0.0, 0.5) if round == 1 else (0.0, 1.0))
