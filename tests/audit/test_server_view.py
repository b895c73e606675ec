"""The audit of what the server hears, by sums and under noise, against the ledger's own word."""

import numpy as np
import pytest
from scipy import stats

from fedge.audit.bounds import epsilon_shown
from fedge.audit.one_run import guessed
from fedge.audit.views import observer, report_of, server, vectors
from fedge.privacy.noise.gaussian import FOR_TESTS
from fedge.protocol import RoundReport

SUMS = ("privacy.view=sums", "privacy.min_cohort=2")


def clients(seed: int, count: int = 12) -> list[list[dict]]:
    """A fleet's reports of two rounds."""
    chance = np.random.default_rng(seed)
    rows = []
    for client in range(count):
        own = []
        for round in (1, 2):
            right, before = (int(number) for number in chance.integers(5, 25, 2))
            gained = max(0, right - before) + 1
            report = RoundReport(
                round=round, client=client, test_count=25, test_correct=right, factory_correct=before,
                test_gained=gained, test_lost=gained - right + before, validation_count=25, validation_correct=9,
                samples_seen=76, samples_kept=31, train_loss=float(chance.random()), macs_done=40 + right,
                macs_dense=100, time_s=float(chance.random()),
            )  # fmt: skip
            own.append({"round": round, "client": client, "status": "ok", **report.row()})
        rows.append(own)
    return rows


def test_rows_are_the_reports_that_they_were() -> None:
    """Breaks if the audit sums up other numbers than a device would have sent shares of."""
    report = RoundReport(round=2, client=1, samples_seen=5, criterion=1, train_loss=0.5, own={"f1": 0.25})
    assert report_of({"round": 2, "client": 1, "status": "ok", **report.row()}) == report


@pytest.mark.parametrize("view", ["sums", "each"])
def test_what_is_shown_of_noised_figures_is_at_most_the_ledgers(small, monkeypatch, view: str) -> None:
    """Breaks if the audit and the ledger contradict one another: on 50 seeds, one in twenty may by chance."""
    scenario = small(f"privacy.view={view}", "privacy.min_cohort=2", "privacy.epsilon=1")
    shown = []
    for seed in range(50):
        monkeypatch.setenv(FOR_TESTS, str(seed))
        told = server(scenario)
        whole = vectors(told, clients(seed))
        found = guessed("a client", told, np.zeros_like(whole), whole, np.random.default_rng(seed), coins=132)
        shown.append(epsilon_shown(found.right, found.coins, found.coins, delta=told.delta))
    assert told.epsilon == 1
    assert sum(value > told.epsilon for value in shown) <= stats.binom.ppf(0.999, 50, 0.05)


def test_little_noise_shows_and_much_noise_hides(small, monkeypatch) -> None:
    """Breaks if the audit would find nothing, whatever the noise: at a large epsilon single clients are guessed."""
    monkeypatch.setenv(FOR_TESTS, "3")
    right = {}
    for epsilon in (0.5, 100):
        told = server(small(*SUMS, f"privacy.epsilon={epsilon}"))
        whole = vectors(told, clients(1, count=6))
        right[epsilon] = (
            guessed("a client", told, np.zeros_like(whole), whole, np.random.default_rng(0)).right / 504
        )
    assert right[0.5] < 0.75 and right[100] > 0.9


def test_exact_sums_of_few_clients_are_taken_apart(small) -> None:
    """Breaks if the audit calls sums without noise private: who knows all but the coins solves for them."""
    told, all_of_it = server(small(*SUMS)), observer(small())
    assert (told.summed, told.noise, told.epsilon, all_of_it.summed) == (True, None, None, False)
    out, inside = clients(1), clients(2)
    base = vectors(told, out)
    found = guessed("a row", told, base, vectors(told, inside) - base, np.random.default_rng(0))
    assert found.right > 0.95 * found.coins
