"""The audit's statistics: pure functions of counts and scores, at a stated confidence.

epsilon_shown      one-run audit (Steinke, Nasr, Jagielski 2023, theorem 5.2): what so many right guesses prove
share_interval     Clopper-Pearson: exact, never too narrow
true_positives     membership: the share of members found where few outsiders are taken for some
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
_MOST_EPSILON = 64.0  # beyond it two outputs are apart for good
_HALVINGS = 24  # of 64, down to 4e-6


@dataclass(frozen=True)
class Share:
    """`count` of `trials`, and both ends of its interval."""

    count: int
    trials: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        """None of no trials."""
        return self.count / self.trials if self.trials else None

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, **asdict(self)}


def share_interval(count: int, trials: int, confidence: float = CONFIDENCE) -> Share:
    """Clopper-Pearson's interval of a probability: of all that could have given `count` of independent `trials`."""
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, count, trials - count + 1)) if count else 0.0
    high = float(stats.beta.ppf(1 - tail, count + 1, trials - count)) if count < trials else 1.0
    return Share(count, trials, low, high)


def chance_of(right: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """The most that a mechanism of (epsilon, delta) leaves as probability of so many right guesses, or more.

    `canaries` coins were thrown, of which `guesses` were guessed, `right` of them rightly; 0 <= right <= guesses <=
    canaries. It falls with `right` and rises with epsilon. 1: anything goes.
    """
    one = 1 / (1 + math.exp(-epsilon))
    by_epsilon = float(stats.binom.sf(right - 1, guesses, one))
    if not delta or not right:
        return min(1.0, by_epsilon)
    # P[right > W >= right - i] / i, of W as above: what a share delta of outputs that tell all may add
    below_I = np.cumsum(stats.binom.pmf(np.arange(right - 1, -1, -1), guesses, one))
    worst = float(np.max(below_I / np.arange(1, right + 1)))
    return min(1.0, by_epsilon + 2 * canaries * delta * worst)


def epsilon_shown(
    right: int, guesses: int, canaries: int, *, delta: float = 0.0, confidence: float = CONFIDENCE
) -> float:
    """The largest epsilon that so many right guesses refute: the mechanism's own is above it, but for 1 - confidence.

    0 where they refute nothing, as at half of them right. A mechanism that tells everything shows no more than the
    number of guesses allows: 5.1 of 500.
    """
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"{right} right of {guesses} guesses of {canaries} canaries")
    refuted = 1 - confidence
    low, high = 0.0, _MOST_EPSILON
    if chance_of(right, guesses, canaries, low, delta) >= refuted:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if chance_of(right, guesses, canaries, middle, delta) < refuted:
            low = middle
        else:
            high = middle
    return low


def true_positives(
    members_N: NDArray[np.float64],
    outsiders_N: NDArray[np.float64],
    *,
    false_positives: float = 0.01,
    confidence: float = CONFIDENCE,
) -> Share | None:
    """The share of members whose score is above all outsiders' but for a share `false_positives` of them.

    None where there are too few outsiders to speak of such a share: fewer than 1 / false_positives.
    """
    allowed = math.floor(false_positives * len(outsiders_N) + 1e-9)
    if not allowed or not len(members_N):
        return None
    threshold = np.sort(outsiders_N)[-allowed - 1]
    return share_interval(int((members_N > threshold).sum()), len(members_N), confidence)


def area_under_curve(members_N: NDArray[np.float64], outsiders_N: NDArray[np.float64]) -> float | None:
    """How often a member's score is above an outsider's, a tie counting half. 0.5: scores tell nothing."""
    if not len(members_N) or not len(outsiders_N):
        return None
    ranks_N = stats.rankdata(np.concatenate([members_N, outsiders_N]))
    above = ranks_N[: len(members_N)].sum() - len(members_N) * (len(members_N) + 1) / 2
    return float(above / (len(members_N) * len(outsiders_N)))
