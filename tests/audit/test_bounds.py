"""The audit's statistics against mechanisms and counts whose answers are known."""

import math

import numpy as np
import pytest
from scipy import stats

from fedge.audit.bounds import area_under_curve, chance_of, epsilon_shown, share_interval, true_positives


def right_of(epsilon: float, coins: int, seed: int) -> int:
    """Guesses that are right of a mechanism that tells each coin with exactly this epsilon."""
    return int(np.random.default_rng(seed).binomial(coins, 1 / (1 + math.exp(-epsilon))))


@pytest.mark.parametrize(("epsilon", "least"), [(0.5, 0.25), (1.0, 0.75), (4.0, 3.1)])
def test_randomized_response_is_bounded_from_below(epsilon: float, least: float) -> None:
    """Breaks if the audit accuses an honest mechanism more often than in one of twenty, or shows next to nothing."""
    shown = [epsilon_shown(right_of(epsilon, 500, seed), 500, 500) for seed in range(50)]
    too_high = sum(value > epsilon for value in shown)
    assert too_high <= stats.binom.ppf(0.999, 50, 0.05)
    assert np.mean(shown) > least


@pytest.mark.parametrize(("coins", "known"), [(100, 0.56), (500, 0.83), (5000, 0.95)])
def test_it_shows_what_the_reference_shows(coins: int, known: float) -> None:
    """Breaks if the bound is not that of Steinke, Nasr and Jagielski: figures of jax-privacy at epsilon 1."""
    rights = stats.binom.ppf(np.arange(0.05, 1, 0.1), coins, 1 / (1 + math.exp(-1.0)))
    shown = [epsilon_shown(int(right), coins, coins, delta=1e-9) for right in rights]
    assert np.mean(shown) == pytest.approx(known, abs=0.08)


def test_what_half_of_the_guesses_and_all_of_them_show() -> None:
    """Breaks if coins alone show something, or if a mechanism that tells everything shows more than it can."""
    assert epsilon_shown(250, 500, 500) == 0
    assert epsilon_shown(400, 500, 500) == pytest.approx(1.20, abs=0.01)
    assert pytest.approx((1 / (1 + math.exp(-epsilon_shown(500, 500, 500)))) ** 500, rel=1e-3) == 0.05
    with pytest.raises(ValueError):
        epsilon_shown(3, 2, 2)


def test_delta_excuses_some_guesses() -> None:
    """Breaks if delta is left out: a mechanism may tell everything with that probability."""
    assert epsilon_shown(400, 500, 500, delta=1e-3) < epsilon_shown(400, 500, 500, delta=1e-9)
    assert epsilon_shown(400, 500, 500, delta=0.01) == 0
    assert chance_of(0, 5, 5, 1.0, 0.1) == 1


def test_intervals_are_clopper_and_pearsons() -> None:
    """Breaks if an interval is narrower than exact."""
    for count, trials in ((0, 10), (3, 10), (10, 10), (7, 400)):
        exact = stats.binomtest(count, trials).proportion_ci(0.95, "exact")
        mine = share_interval(count, trials)
        assert (mine.low, mine.high) == pytest.approx((exact.low, exact.high))
    assert share_interval(0, 0).value is None


def test_members_are_counted_above_all_but_one_in_a_hundred_outsiders() -> None:
    """Breaks if the threshold lets more outsiders pass than it says, or a tie is taken for a member."""
    outsiders = np.arange(200.0)  # two may be above: 198 and 199
    found = true_positives(np.array([197.0, 197.5, 198.0, 300.0]), outsiders)
    assert (found.count, found.trials) == (3, 4)
    assert (outsiders > 197).sum() == 2
    assert true_positives(np.ones(5), np.arange(99.0)) is None


def test_the_area_counts_ties_as_half() -> None:
    """Breaks if equal scores look like knowledge."""
    assert area_under_curve(np.ones(3), np.ones(7)) == 0.5
    assert area_under_curve(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert area_under_curve(np.array([]), np.ones(2)) is None
