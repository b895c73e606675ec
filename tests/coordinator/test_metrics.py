"""Fleet figures, against hand-computed cases."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.coordinator.metrics import accuracies, parameters_left, saved, spread, summarise_round
from fedge.fleet.selection import Closing
from fedge.protocol import RoundReport

CLOSING = Closing(counted=(0, 2), late=(), time_s=1.0, wanted=4, needed=2)


def row(client: int, status: str = "ok", **fields) -> dict:
    if status != "ok":
        return {"round": 1, "client": client, "device": "d", "status": status}
    return RoundReport(round=1, client=client, **fields).model_dump() | {"device": "d", "status": "ok"}


def test_spread_by_hand() -> None:
    """Breaks if the deviation is of a sample, or the worst decile of few clients is empty."""
    figures = spread([0.2, 0.4, 0.9])
    assert figures["mean"] == pytest.approx(0.5)
    assert figures["std"] == pytest.approx((0.26 / 3) ** 0.5)
    assert figures["worst_decile"] == 0.2  # ceil(3 / 10) = 1 client
    assert (figures["min"], figures["max"], figures["clients"]) == (0.2, 0.9, 3)
    assert spread([i / 100 for i in range(11)])["worst_decile"] == pytest.approx(0.005)  # 2 clients


def test_spread_of_nobody_is_none_and_not_nan() -> None:
    """Breaks if an empty fleet's figures are NaN, which no JSON reader takes."""
    assert spread([])["mean"] is None


def test_a_round_with_failures_says_k_of_n() -> None:
    """Breaks if a failed client is dropped silently or counted into a sum."""
    rows = [
        row(0, samples_seen=10, samples_kept=4, macs_done=30, macs_dense=100, test_correct=1, test_count=2,
            parameters=5, parameters_dense=10),
        row(1, status="host_died"),
        row(2, samples_seen=20, samples_kept=6, macs_done=20, macs_dense=100, test_correct=2, test_count=2,
            parameters=10, parameters_dense=10),
        row(3, status="host_died"),
    ]  # fmt: skip
    figures = summarise_round(1, rows, online=4, closing=CLOSING)
    assert (figures["ok"], figures["clients"], figures["failures"]) == (2, 4, {"host_died": 2})
    assert (figures["samples_seen"], figures["samples_kept"]) == (30, 10)
    assert figures["saved"] == pytest.approx(0.75)
    assert figures["accuracy"]["mean"] == pytest.approx(0.75)
    assert figures["parameters_left"] == pytest.approx(0.75)


def test_a_round_that_all_failed_is_finite() -> None:
    """Breaks if 100% dropout divides by zero."""
    figures = summarise_round(1, [row(0, status="deadline_exceeded")], online=1, closing=CLOSING)
    assert figures["saved"] == 0.0
    assert figures["accuracy"]["clients"] == 0
    assert figures["parameters_left"] is None


def test_a_client_without_test_data_is_left_out_of_accuracy() -> None:
    """Breaks if 0 of 0 counts as accuracy 0, or divides by zero."""
    assert accuracies([row(0), row(1, test_correct=3, test_count=4)], "test_correct") == [0.75]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
def test_spread_is_ordered_and_does_not_depend_on_order(values: list[float]) -> None:
    """Breaks if a figure depends on which reply came first, or if min <= worst decile <= mean <= max fails."""
    figures = spread(values)
    assert figures == spread(values[::-1])
    slack = 1e-12
    assert figures["min"] <= figures["worst_decile"] + slack <= figures["mean"] + 2 * slack
    assert figures["mean"] <= figures["max"] + slack


def test_limits() -> None:
    """Breaks if nothing to do counts as something saved."""
    assert saved(0, 0) == 0.0
    assert saved(100, 100) == 0.0
    assert parameters_left([]) is None
