"""Property inference: which of two mixes of labels a client has, guessed from its reports over the rounds.

    mix A    SHARE of a client's rows are of the first half of the classes
    mix B    of the second half

In the same number as its own, part by part. Who guesses has learnt on one half of the clients, of which it knows the
mix, and is asked of the other half; then the halves change places. Of sums, all other clients have a mix by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedge.audit.bounds import Share, share_interval
from fedge.audit.views import View, vectors
from fedge.audit.worlds import Row, Rows, World, changed, complete, picked, rows_of
from fedge.data.shard import SPLITS
from fedge.scenario.schema import Scenario

SHARE = 0.8
MIXES = 2
_LEARNT_SUMS = 20  # sums that are learnt from per known client and draw


@dataclass(frozen=True)
class Inferred:
    """How often the mix was guessed in one view."""

    view: View
    right: Share

    def as_json(self) -> dict[str, Any]:
        return {"view": self.view.name, "of": self.view.of, "right": self.right.as_json(), "by_chance": 0.5}


def worlds(
    scenario: Scenario,
    prepared: Path,
    chosen: Sequence[int],
    folder: Path,
    draws: int,
    chance: np.random.Generator,
) -> list[World]:
    """A run per draw of rows and mix: first both mixes of the first draw."""
    own = [rows_of(prepared, client) for client in chosen]
    pools = {part: _pool(own, part) for part in SPLITS}
    classes = np.unique(pools["train"][1])
    found = []
    for draw in range(draws):
        for mix in range(MIXES):
            rows = [mixed(pools, client, classes, mix, chance) for client in own]
            place = folder / f"{draw}-{'AB'[mix]}"
            found.append(World(scenario, changed(prepared, rows, place / "data"), place / "run"))
    return found


def _pool(own: Sequence[Rows], part: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """All clients' rows of a part, training rows and test rows apart as ever."""
    x, y = (np.concatenate([rows[part][place] for rows in own]) for place in (0, 1))
    return x, y


def mixed(pools: Rows, client: Rows, classes: NDArray[Any], mix: int, chance: np.random.Generator) -> Rows:
    """As many rows as the client has, in the mix, drawn from all clients' rows of the same part."""
    halves = np.array_split(classes, 2)
    wanted = halves[mix]
    found: Rows = {}
    for part in SPLITS:
        pool, count = pools[part], len(client[part][1])
        inside_N = np.isin(pool[1], wanted)
        many = round(SHARE * count)
        takes = ((np.flatnonzero(inside_N), many), (np.flatnonzero(~inside_N), count - many))
        which = [chance.choice(rows, size) if len(rows) else rows[:0] for rows, size in takes]
        found[part] = picked(pool, chance.permutation(np.concatenate(which)))
    return found


def audit(
    views: Sequence[View], reports: Sequence[Sequence[Row]], clients: int, chance: np.random.Generator
) -> list[Inferred]:
    """How often it is guessed right in each view, once per client and draw, from the reports of `worlds`."""
    told = complete(reports, clients)
    found: list[Inferred] = []
    for view in views:
        if view.whole and found:
            found += [replace(each, view=view) for each in found if each.view.whole]
            continue
        held_RNF = np.stack([vectors(view, each) for each in told])
        held_DMNF = held_RNF.reshape(-1, MIXES, *held_RNF.shape[1:])
        found.append(Inferred(view, _guessed(view, held_DMNF, chance)))
    return found


def _guessed(view: View, held_DMNF: NDArray[np.float64], chance: np.random.Generator) -> Share:
    draws, _, clients, _ = held_DMNF.shape
    order = chance.permutation(clients)
    halves = order[: clients // 2], order[clients // 2 :]
    right = 0
    for known, asked in (halves, halves[::-1]):
        x, y = _examples(view, held_DMNF, known, chance, _LEARNT_SUMS if view.summed else 1)
        guess = _learnt(x, y)
        for draw in range(draws):
            for client in asked:
                mix = int(chance.integers(MIXES))
                seen_F = _seen(view, held_DMNF, draw, mix, int(client), chance)
                right += int(guess(seen_F[None])[0] == mix)
    return share_interval(right, draws * clients)


def _examples(
    view: View,
    held_DMNF: NDArray[np.float64],
    known: NDArray[np.int64],
    chance: np.random.Generator,
    times: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What is seen of the known clients in each mix."""
    x, y = [], []
    for _ in range(times):
        for draw in range(len(held_DMNF)):
            for mix in range(MIXES):
                for client in known:
                    x.append(_seen(view, held_DMNF, draw, mix, int(client), chance))
                    y.append(mix)
    return np.stack(x), np.array(y)


def _seen(
    view: View, held_DMNF: NDArray[np.float64], draw: int, mix: int, client: int, chance: np.random.Generator
) -> NDArray[np.float64]:
    """What is seen where this client has the mix, and the others one by chance."""
    if not view.summed:
        own: NDArray[np.float64] = view.seen(held_DMNF[draw, mix, client][None])[0]
        return own
    draws, mixes, clients, _ = held_DMNF.shape
    everybody = np.arange(clients)
    whose_D, whose_M = (np.asarray(chance.integers(0, kinds, clients)) for kinds in (draws, mixes))
    whose_D[client], whose_M[client] = draw, mix
    return view.seen(held_DMNF[whose_D, whose_M, everybody])


def _learnt(x: NDArray[np.float64], y: NDArray[np.int64]) -> Any:
    """A logistic regression on standardised numbers: few examples allow no more."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    model.fit(x, y)
    return model.predict
