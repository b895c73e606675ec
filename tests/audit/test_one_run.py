"""The one-run audit against mechanisms of known epsilon, and against those that tell everything or nothing."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from fedge.audit.bounds import epsilon_shown
from fedge.audit.one_run import audit, guessed, with_canary
from fedge.audit.views import View, observer

CLIENTS = 12


def noised(sigma: float, seed: int, entries: int, *, summed: bool = True, delta: float = 0.0) -> View:
    chance = np.random.default_rng((seed, 1))
    draw: Callable[[], np.ndarray] = lambda: chance.normal(0, sigma, entries)  # noqa: E731
    return View("server", lambda reports: np.zeros(entries), summed, draw, sigma, None, delta)


def gaussian_epsilon(sigma: float, delta: float) -> float:
    """Of Gaussian noise at sensitivity 1: Balle and Wang's exact delta, solved for epsilon."""
    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        exact = stats.norm.cdf(0.5 / sigma - middle * sigma) - math.exp(middle) * stats.norm.cdf(
            -0.5 / sigma - middle * sigma
        )
        low, high = (middle, high) if exact > delta else (low, middle)
    return high


@pytest.mark.parametrize(("sigma", "least"), [(3.7, 0.0), (1.0, 0.4), (0.5, 1.1)])
def test_noise_of_known_epsilon_is_never_accused(sigma: float, least: float) -> None:
    """Breaks if the audit of noised sums shows more than their epsilon, in more than one run of twenty; or nothing."""
    delta, effects = 1e-5, np.eye(CLIENTS)  # the best case of who guesses: an entry of its own for everybody
    epsilon = gaussian_epsilon(sigma, delta)
    shown = []
    for seed in range(50):
        found = guessed("a client", noised(sigma, seed, CLIENTS, delta=delta), np.zeros_like(effects), effects,
                        np.random.default_rng(seed), coins=252)  # fmt: skip
        assert found.coins == 252
        shown.append(epsilon_shown(found.right, found.coins, found.coins, delta=delta))
    assert sum(value > epsilon for value in shown) <= stats.binom.ppf(0.999, 50, 0.05)
    assert np.mean(shown) >= least


def test_reports_without_noise_tell_every_coin() -> None:
    """Breaks if the audit misses that a server which reads each report knows each row."""
    effects = np.zeros((CLIENTS, 5))
    effects[:, 3] = -1  # one right answer less
    view = View("server", lambda reports: np.zeros(5))
    found = guessed("a test row", view, np.ones_like(effects), effects, np.random.default_rng(0))
    assert found.right == found.coins
    assert found.as_json()["epsilon_at_least"] == pytest.approx(
        found.as_json()["most_that_so_many_coins_show"]
    )


def test_exact_sums_of_unlike_effects_are_taken_apart() -> None:
    """Breaks if sums without noise pass for private: who knows the effects of all rows solves for the coins."""
    effects = np.random.default_rng(1).normal(size=(CLIENTS, 30))
    view = View("server", lambda reports: np.zeros(30), summed=True)
    found = guessed("a training row", view, np.ones_like(effects), effects, np.random.default_rng(0))
    assert found.right == found.coins


def test_one_sum_of_equal_effects_tells_little() -> None:
    """Breaks if the audit accuses a count over twelve clients of telling single ones."""
    view = View("server", lambda reports: np.zeros(1), summed=True)
    found = guessed("a row", view, np.zeros((CLIENTS, 1)), np.ones((CLIENTS, 1)), np.random.default_rng(0))
    assert found.as_json()["epsilon_at_least"] < 0.8


def test_what_changes_nothing_is_guessed_by_chance() -> None:
    """Breaks if the audit peeks at its own coins."""
    for summed in (True, False):
        view = View("server", lambda reports: np.zeros(4), summed=summed)
        nothing = np.zeros((CLIENTS, 4))
        found = guessed("a row", view, nothing + 5, nothing, np.random.default_rng(3))
        assert 0.4 < found.right / found.coins < 0.6
        assert found.as_json()["epsilon_at_least"] == 0


def test_both_columns_are_one_where_the_server_reads_reports(small) -> None:
    """Breaks if chance makes the same knowledge look like two."""
    rows = [
        {"client": client, "round": 1, "status": "ok", "test_correct": 9 + planted}
        for planted in (0, 1)
        for client in range(CLIENTS)
    ]
    out, inside = rows[:CLIENTS], rows[CLIENTS:]
    view = observer(small())
    found = audit([view, view], [out, out, inside], CLIENTS, np.random.default_rng(0))
    assert [each.canary for each in found] == ["a training row is a canary", "a test row is a canary"] * 2
    assert [each.right for each in found[:2]] == [each.right for each in found[2:]]
    assert found[1].right == found[1].coins and found[0].right < found[0].coins


def test_a_canary_leaves_sizes_and_other_rows_alone() -> None:
    """Breaks if a canary is found by the number of rows, or if more than one row is another."""
    chance = np.random.default_rng(0)
    rows = {
        part: (chance.random((6, 1, 4, 4), np.float32), np.arange(6))
        for part in ("train", "validation", "test")
    }
    planted = with_canary(rows, "test", chance)
    assert np.array_equal(planted["train"][0], rows["train"][0])
    assert np.array_equal(planted["test"][0][1:], rows["test"][0][1:])
    assert planted["test"][1][0] != 0 and not np.array_equal(planted["test"][0][0], rows["test"][0][0])
    assert len(planted["test"][1]) == 6
