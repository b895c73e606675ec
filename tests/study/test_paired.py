"""The statistics of a study, against hand-computed figures, made-up fleets, and scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from fedge.protocol.hurt import chance_of_losing
from fedge.study.front import dominated_by, front
from fedge.study.paired import matrix, probability_of_improvement, spread_of_mean, two_way_interval


@pytest.mark.parametrize(
    ("clients", "runs", "of_clients", "of_runs", "rest"),
    [
        (12, 9, 0.05, 0.01, 0.03),  # people differ most
        (30, 3, 0.04, 0.02, 0.03),
        (12, 9, 0.02, 0.03, 0.02),  # runs differ most
        (100, 3, 0.02, 0.01, 0.05),  # small test sets
        (20, 1, 0.05, 0.00, 0.03),  # one run
    ],
)
def test_the_interval_holds_the_truth_as_often_as_it_says(
    clients: int, runs: int, of_clients: float, of_runs: float, rest: float
) -> None:
    """Breaks if a study is surer than its clients and seeds allow, or so unsure that it shows nothing."""
    generator, truth, held = np.random.default_rng(1), 0.02, 0
    for fleet in range(600):
        gain_CR = (
            truth
            + of_clients * generator.standard_normal((clients, 1))
            + of_runs * generator.standard_normal((1, runs))
            + rest * generator.standard_normal((clients, runs))
        )
        interval = two_way_interval(gain_CR, fleet, draws=300)
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
    assert 0.92 <= held / 600 <= 0.98


def test_the_spread_of_a_mean_by_hand() -> None:
    """Breaks if a mean square is divided by the wrong count."""
    gain_CR = np.array([[0.0, 2.0], [2.0, 4.0], [4.0, 6.0]])  # client + run, nothing else
    # client means 1, 3, 5: variance 4 of 3; run means 2, 4: variance 2 of 2; the rest is 0
    variance, freedom = spread_of_mean(gain_CR)
    assert variance == pytest.approx(4 / 3 + 2 / 2)
    assert freedom == pytest.approx((4 / 3 + 1) ** 2 / ((4 / 3) ** 2 / 2 + 1))


def test_the_limits_of_an_interval() -> None:
    """Breaks if one client gives an interval, or clients that all gained the same an uncertain one."""
    assert two_way_interval(np.array([[0.1, 0.2]]), 0) is None
    assert two_way_interval(np.full((5, 3), 0.25), 0) == [0.25, 0.25]
    gaps = np.array([[0.1, np.nan], [0.2, 0.3], [np.nan, 0.1]])
    interval = two_way_interval(gaps, 0)
    assert interval is not None and interval[0] < np.nanmean(gaps) < interval[1]


@given(st.dictionaries(st.tuples(st.integers(0, 9), st.integers(0, 3)), st.floats(-1, 1), min_size=1))
def test_a_matrix_holds_every_gain_once(gains: dict[tuple[int, int], float]) -> None:
    """Breaks if a client's gain is counted for another client or run."""
    gain_CR = matrix(gains)
    assert np.isfinite(gain_CR).sum() == len(gains)
    assert sorted(gain_CR[np.isfinite(gain_CR)]) == sorted(gains.values())


def test_improvement_counts_ties_by_half() -> None:
    """Breaks if clients that nothing changed for count as gained or lost."""
    assert probability_of_improvement([0.1, 0.0, -0.2, 0.3]) == pytest.approx((1 + 0.5 + 0 + 1) / 4)


def test_mcnemar_is_scipys_on_a_thousand_tables() -> None:
    """Breaks if a client passes for hurt, or for unhurt, by a wrong tail."""
    generator = np.random.default_rng(3)
    for gained, lost in generator.integers(0, 60, size=(1000, 2)).tolist():
        chance = binomtest(lost, gained + lost, alternative="greater").pvalue if gained + lost else 1.0
        assert chance_of_losing(gained, lost) == pytest.approx(chance, abs=1e-12)


def test_the_front_by_hand() -> None:
    """Breaks if an arm that another beats is recommended, or the only cheap one is not."""
    brings = {"a": 0.9, "b": 0.8, "c": 0.85, "d": 0.9}
    takes = {"a": 10.0, "b": 2.0, "c": 12.0, "d": 10.0}
    assert front(brings, takes) == ["b", "a", "d"]  # equal in both: neither beats the other
    assert dominated_by("c", brings, takes) == "d"
    assert dominated_by("a", brings, takes) is None
