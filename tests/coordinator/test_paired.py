"""Gains over the factory model and who is hurt, against hand-computed cases."""

import math
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.coordinator.paired import bootstrap_interval, gain, hurt
from fedge.coordinator.schedule import plan_round
from fedge.coordinator.view.each import report_row
from fedge.engine.flower_private import SERVER_NODE_ID, identify
from fedge.protocol import RoundReport
from fedge.protocol.hurt import chance_of_losing


def row(count: int, factory: int, gained: int, lost: int, told: int = 0) -> dict:
    return {
        "test_count": count,
        "factory_correct": factory,
        "test_correct": factory + gained - lost,
        "told_correct": told,
        "test_gained": gained,
        "test_lost": lost,
    }


def test_gain_by_hand() -> None:
    """Breaks if gains are not paired client by client, or are weighted by how many test rows a client has."""
    rows = [row(10, 5, 3, 1, told=6), row(100, 50, 0, 20, told=40), row(4, 0, 4, 0, told=4)]
    figures = gain(rows, seed=1)  # gains: 0.2, -0.2, 1; above told: 0.1, -0.1, 0
    assert figures["mean"] == pytest.approx(1 / 3)
    assert figures["median"] == pytest.approx(0.2)
    assert figures["worst_decile"] == pytest.approx(-0.2)
    assert figures["over_told"] == pytest.approx(0.0, abs=1e-15)
    low, high = figures["interval"]
    assert (low, high) == (pytest.approx(-0.2), pytest.approx(1.0))  # each all three draws of 27: 3.7 %


def test_hurt_by_hand() -> None:
    """Breaks if a client without a loss counts as hurt, or four losses (p = 1/16) as more than chance."""
    rows = [row(20, 10, 0, 4), row(20, 10, 0, 5), row(20, 10, 5, 5), row(20, 10, 6, 1), row(0, 0, 0, 0)]
    assert hurt(rows) == {"any": 2 / 4, "beyond_chance": 1 / 4}


@pytest.mark.parametrize(
    ("gained", "lost", "chance"),
    [
        (0, 0, 1.0),
        (0, 1, 1 / 2),
        (0, 4, 1 / 16),
        (0, 5, 1 / 32),
        (1, 7, 9 / 256),  # (8 over 7) + (8 over 8) of 2^8
        (2, 8, 56 / 1024),
        (3, 3, 42 / 64),
        (5, 0, 1.0),
        (4, 1, 31 / 32),
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, chance: float) -> None:
    """Breaks if the test is two-sided, leaves the observed count out, or forgets a term."""
    assert chance_of_losing(gained, lost) == pytest.approx(chance, rel=1e-12)


@given(st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_the_exact_binomial_tail(gained: int, lost: int) -> None:
    """Breaks if the sum stops too early or its first term is rounded away."""
    tosses = gained + lost
    exact = Fraction(sum(math.comb(tosses, heads) for heads in range(lost, tosses + 1)), 2**tosses)
    assert chance_of_losing(gained, lost) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


def test_mcnemar_of_a_billion_rows_is_quick() -> None:
    """Breaks if one report with a large count, true or not, holds up the coordinator."""
    half = 500_000_000
    assert chance_of_losing(half, half) == pytest.approx(0.5, abs=1e-4)
    assert chance_of_losing(half - 20_000, half + 20_000) == pytest.approx(
        0.103, abs=1e-3
    )  # 1.265 deviations
    assert chance_of_losing(0, 10**9) == 0.0


def test_nobody_one_and_equal_clients() -> None:
    """Breaks if no test rows crash the summary, or if one client is given an interval it cannot have."""
    nothing = gain([row(0, 0, 0, 0)], seed=1)
    assert set(nothing) == {"mean", "median", "worst_decile", "interval", "over_told"}
    assert set(nothing.values()) == {None}
    assert gain([], seed=1) == nothing
    assert hurt([]) == hurt([row(0, 0, 0, 0)]) == {"any": None, "beyond_chance": None}
    alone = gain([row(4, 1, 2, 0)], seed=1)
    assert (alone["mean"], alone["median"], alone["interval"]) == (0.5, 0.5, None)
    assert gain([row(4, 1, 2, 0)] * 3, seed=1)["interval"] == [0.5, 0.5]


def test_an_interval_is_a_function_of_gains_and_seed() -> None:
    """Breaks if a resumed run, or another process, prints another interval."""
    values = [math.sin(k) for k in range(12)]
    assert bootstrap_interval(values, 5) == bootstrap_interval(values, 5)
    assert bootstrap_interval(values, 5) != bootstrap_interval(values, 6)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Breaks if the interval is of single clients, or one-sided, or of another level than 95 %."""
    generator = Random(3)
    fleets = [[generator.gauss(0.02, 0.05) for _ in range(30)] for _ in range(200)]
    intervals = [bootstrap_interval(fleet, seed, draws=400) for seed, fleet in enumerate(fleets)]
    held = sum(low <= 0.02 <= high for low, high in intervals)
    assert 180 <= held <= 198  # 190 expected; at 30 clients the percentile bootstrap holds some 93 %


COUNTS = {
    "test_count": 10,
    "test_correct": 6,
    "factory_correct": 5,
    "told_correct": 7,
    "test_gained": 3,
    "test_lost": 2,
}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "ok"),
        ({"told_correct": 11}, "corrupt_report"),
        ({"test_gained": 4}, "corrupt_report"),
        ({"test_gained": 7, "test_lost": 6}, "corrupt_report"),  # more lost than the factory model had right
        ({"test_correct": 1, "factory_correct": 1, "test_gained": 0, "test_lost": 0, "test_count": 0},
         "corrupt_report"),
        ({"factory_correct": 8, "test_correct": 9, "test_gained": 3}, "corrupt_report"),  # 8 + 3 rows of 10
    ],
    ids=["honest", "told", "difference", "lost", "no rows", "gained"],
)  # fmt: skip
def test_counts_that_cannot_be_true_are_no_report(small, change: dict, status: str) -> None:
    """Breaks if a report whose gained and lost do not explain its accuracies reaches the figures."""
    identify(SERVER_NODE_ID)
    scenario = small()
    message = plan_round(scenario, 1).to_message(1)
    reply = RoundReport(round=1, client=0, **(COUNTS | change)).reply_to(message)
    assert report_row(scenario, 1, 0, reply)["status"] == status
