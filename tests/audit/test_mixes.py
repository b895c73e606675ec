"""Property inference: what is guessed where there is something to guess, and where there is nothing."""

import numpy as np
import pytest

from fedge.audit.mixes import SHARE, audit, mixed
from fedge.audit.views import View


def reports(shift: float, clients: int = 12, draws: int = 3) -> list[list[dict]]:
    """A run per draw and mix whose clients' reports differ by `shift` between the mixes."""
    chance = np.random.default_rng(2)
    return [
        [
            {
                "client": client,
                "round": 1,
                "status": "ok",
                "value": mix * shift + chance.normal(),
                "other": 4.0,
            }
            for client in range(clients)
        ]
        for _ in range(draws)
        for mix in range(2)
    ]


def view(*, summed: bool = False) -> View:
    def vector(rows):
        return np.array([row[name] for row in rows for name in ("value", "other")])

    return View("server", vector, summed)


@pytest.mark.parametrize("summed", [False, True])
def test_a_mix_that_shows_is_guessed_and_one_that_does_not_is_not(summed: bool) -> None:
    """Breaks if the audit calls reports blind that tell a client's classes, or finds what nobody said."""
    chance = np.random.default_rng(0)
    (seen,) = audit([view(summed=False)], reports(20.0), 12, chance)
    assert seen.right.low > 0.85 and seen.right.trials == 36
    (nothing,) = audit([view(summed=summed)], reports(0.0), 12, chance)
    assert nothing.right.low <= 0.5 <= nothing.right.high


def test_a_sum_hides_whose_mix_it_is() -> None:
    """Breaks if the sum over clients, each with a mix by chance, is taken for one client's own report."""
    (seen,) = audit([view(summed=True)], reports(20.0), 12, np.random.default_rng(0))
    assert seen.right.value < 0.85


def test_a_mix_has_its_share_and_the_clients_sizes() -> None:
    """Breaks if mixes differ in more than labels, such as the number of rows."""
    chance = np.random.default_rng(0)
    sizes = {"train": 200, "validation": 40, "test": 60}
    pools = {part: (np.zeros((500, 1, 2, 2), np.float32), np.arange(500) % 10) for part in sizes}
    client = {part: (np.zeros((size, 1, 2, 2)), np.zeros(size)) for part, size in sizes.items()}
    for mix in (0, 1):
        rows = mixed(pools, client, np.arange(10), mix, chance)
        for part, size in sizes.items():
            x, y = rows[part]
            assert len(x) == len(y) == size
            assert np.mean((y >= 5) == bool(mix)) == pytest.approx(SHARE, abs=0.01)
