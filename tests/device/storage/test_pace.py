"""A stream does not wait: training ends in time, and does what there is time for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.device.budget.pace import Pace


@given(st.floats(0.1, 50), st.lists(st.floats(0.05, 3), max_size=40))
def test_steps_of_one_length_fill_the_time_and_never_more(limit_s: float, costs: list[float]) -> None:
    """Breaks if a device trains past the beginning of its next round, or stops though there was time."""
    step_s = costs[0] if costs else 1.0
    spent = [0.0]
    taken = 0
    for _ in Pace(limit_s, lambda: spent[0]).within(iter(range(len(costs)))):
        spent[0] += step_s
        taken += 1
    assert taken == len(costs) or spent[0] + step_s > limit_s
    assert taken <= 1 or spent[0] <= limit_s


def test_what_was_spent_before_counts_and_no_batch_is_drawn_in_vain() -> None:
    """Breaks if pruning were free of time, or if a batch is marked as trained on that never was."""
    drawn = []

    def batches():
        for number in range(9):
            drawn.append(number)
            yield number

    spent = [7.0]
    for _ in Pace(10.0, lambda: spent[0]).within(batches()):
        spent[0] += 1.0
    assert drawn == [0, 1, 2] and spent[0] == pytest.approx(10.0)
