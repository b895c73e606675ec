"""What is left of a float when it leaves."""

import math
import random

import pytest

from fedge.protocol.rounding import COARSE, FINE, Rounding


def test_the_values_that_are_left_are_as_many_as_counted() -> None:
    """Breaks if the budget counts fewer values of a float than really leave, or grossly more."""
    rounding = Rounding(bits=3, step=0.25)
    left = {rounding(thousandths / 1000) for thousandths in range(64_001)}
    bits = rounding.bits_up_to(64)
    assert len(left) <= 2**bits < 4 * len(left)


@pytest.mark.parametrize(("rounding", "share"), [(FINE, 2**-12), (COARSE, 2**-8)])
def test_a_value_is_right_to_its_share_and_rounding_again_changes_nothing(
    rounding: Rounding, share: float
) -> None:
    """Breaks if a resumed run, which rounds what was rounded, differs, or if a loss is off by more than is said."""
    draw = random.Random(3)
    for value in (10 ** draw.uniform(-9, 12) for _ in range(5000)):
        rounded = rounding(value)
        assert rounding(rounded) == rounded
        assert abs(rounded - value) <= max(share * value, rounding.step / 2)
    assert rounding(0.0) == 0.0 and math.isnan(rounding(math.nan)) and rounding(math.inf) == math.inf
    assert rounding(1e6) <= 1e6 and FINE(1e12) <= 1e12  # no value is rounded out of its range
