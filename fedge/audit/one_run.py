"""One-run audit of the reports: canary rows in or out by a coin, guessed from the reports alone.

Steinke, Nasr, Jagielski, "Privacy auditing with one (1) training run" (2023). A mechanism of (epsilon, delta) cannot
let more than so many of m coins be guessed; so how many are bounds its epsilon from below, with confidence.

Each client has one canary: a row of noise under a wrong label, in the place of one of its own, so that sizes tell
nothing. The guesser knows all else, as in the definition: what every client reports with its canary and without. Where
the server hears sums, whole clients are canaries too: in the sum, or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedge.audit.bounds import CONFIDENCE, epsilon_shown
from fedge.audit.views import View, vectors
from fedge.audit.worlds import Row, Rows, World, changed, complete, rows_of
from fedge.scenario.schema import Scenario

_NAMES = {"train": "a training row is a canary", "test": "a test row is a canary"}
PARTS = tuple(_NAMES)  # that a canary may be of
COINS = 504  # thrown at least: more show more of a mechanism that tells all
_SAME = 1e-9


@dataclass(frozen=True)
class Guessed:
    """What came of one kind of canary in one view."""

    canary: str
    view: View
    coins: int
    right: int

    def as_json(self) -> dict[str, Any]:
        shown = epsilon_shown(self.right, self.coins, self.coins, delta=self.view.delta)
        most = epsilon_shown(self.coins, self.coins, self.coins, delta=self.view.delta)
        return {
            "canary": self.canary,
            "view": self.view.name,
            "of": self.view.of,
            "coins": self.coins,
            "right": self.right,
            "epsilon_at_least": shown,
            "most_that_so_many_coins_show": most,
            "epsilon_of_the_ledger": self.view.epsilon,
            "delta": self.view.delta,
            "confidence": CONFIDENCE,
        }


def worlds(
    scenario: Scenario, prepared: Path, chosen: Sequence[int], folder: Path, chance: np.random.Generator
) -> list[World]:
    """The runs that it takes: all canaries out, all training canaries in, all test canaries in."""
    own = [rows_of(prepared, client) for client in chosen]
    planted = {"out": own}
    for part in PARTS:
        planted[part] = [with_canary(rows, part, chance) for rows in own]
    return [
        World(scenario, changed(prepared, rows, folder / name / "data"), folder / name / "run")
        for name, rows in planted.items()
    ]


def with_canary(rows: Rows, part: str, chance: np.random.Generator) -> Rows:
    """The client's rows with noise under another's target in the place of the first of `part`, where it has one."""
    x, y = (array.copy() for array in rows[part])
    if len(y):
        others = [target for target in rows["train"][1] if np.any(target != y[0])]
        x[0] = _noise(rows["train"][0], chance)
        y[0] = others[0] if others else y[0]
    return {**rows, part: (x, y)}


def _noise(x: NDArray[Any], chance: np.random.Generator) -> NDArray[Any]:
    """Values drawn from all of the client's, one by one: [C, H, W]."""
    drawn: NDArray[Any] = chance.choice(x.reshape(-1), size=x.shape[1:])
    return drawn


def audit(
    views: Sequence[View], reports: Sequence[Sequence[Row]], clients: int, chance: np.random.Generator
) -> list[Guessed]:
    """What is guessed in each view, from the reports of the runs of `worlds`, in their order."""
    told = complete(reports, clients)
    found: list[Guessed] = []
    for view in views:
        if view.whole and found:
            found += [replace(each, view=view) for each in found if each.view.whole]
            continue
        out_NF = vectors(view, told[0])
        for part, inside in zip(PARTS, told[1:], strict=True):
            effects_NF = vectors(view, inside) - out_NF
            found.append(guessed(_NAMES[part], view, out_NF, effects_NF, chance))
        if view.summed:
            found.append(guessed("a client is in the sum", view, np.zeros_like(out_NF), out_NF, chance))
    return found


def guessed(
    canary: str,
    view: View,
    base_NF: NDArray[np.float64],
    effects_NF: NDArray[np.float64],
    chance: np.random.Generator,
    coins: int = COINS,
) -> Guessed:
    """Throw a coin for every client's canary, see what the view shows, guess them all; until there are `coins`.

    base_NF: what each client adds without its canary; effects_NF: what its canary adds to that.
    """
    clients, right, thrown = len(base_NF), 0, 0
    while thrown < coins:
        coins_N = chance.integers(0, 2, clients).astype(bool)
        seen = view.seen(base_NF + effects_NF * coins_N[:, None])
        guess_N = guess(view, seen, base_NF, effects_NF, chance)
        right += int((guess_N == coins_N).sum())
        thrown += clients
    return Guessed(canary, view, thrown, right)


def guess(
    view: View,
    seen: NDArray[np.float64],
    base_NF: NDArray[np.float64],
    effects_NF: NDArray[np.float64],
    chance: np.random.Generator,
) -> NDArray[np.bool_]:
    """The likelier side of each coin [N]; a coin of its own where nothing is to be seen.

    Of sums all coins at once, by least squares drawn towards 1/2: what a coin's own variance and the noise's suggest.
    """
    if view.summed:
        over_F = seen - base_NF.sum(axis=0) - effects_NF.sum(axis=0) / 2
        scale = max(view.sigma, _SAME * float(np.abs(effects_NF).max(initial=0.0)))
        if view.noise is None:
            widest_F = np.abs(effects_NF).max(axis=0)
            kept = widest_F > 0
            effects_NF, over_F, scale = (
                effects_NF[:, kept] / widest_F[kept],
                over_F[kept] / widest_F[kept],
                _SAME,
            )
        if not effects_NF.size or not scale:
            return chance.integers(0, 2, len(base_NF)).astype(bool)
        weighted_NF = effects_NF / scale
        gram_NN = weighted_NF @ weighted_NF.T + 4 * np.eye(len(base_NF))
        score_N = np.linalg.lstsq(gram_NN, weighted_NF @ (over_F / scale), rcond=None)[0]
    else:
        score_N = ((seen - base_NF - effects_NF / 2) * effects_NF).sum(axis=1)
    tied_N = np.abs(score_N) <= _SAME * np.abs(score_N).max(initial=0.0)
    coin_N = chance.integers(0, 2, len(base_NF)).astype(bool)
    return np.where(tied_N, coin_N, score_N > 0)
