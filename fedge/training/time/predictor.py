"""From a step's shape to its seconds, by coefficients learnt from timed steps: two kinds behind one interface.

    width   seconds = sum of eleven non-negative numbers times what `by_width` counts; least squares of relative errors
    trees   perf4sight's: extremely randomised trees on `of_paper`'s 56 features, fitted to seconds as they are

`width` knows that twice the work takes twice as long and goes beyond what was timed; trees do not, as their answer is a
mean of timings. Both are kept as plain numbers: what predicts is a function of the file, whatever is installed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from sklearn.ensemble import ExtraTreesRegressor

from fedge.errors import UserError
from fedge.training.time.features import BY_WIDTH, PAPER, Features, by_width, of_paper
from fedge.training.time.shape import StepShape

TREES = 100
_DIGITS = 7  # of what is written; float32 has no more


class Predictor(Protocol):
    """Seconds of a training step."""

    kind: ClassVar[str]

    def step_s(self, step: StepShape) -> float:
        """Above 0; processor seconds of one thread."""

    def table(self) -> dict[str, Any]:
        """The coefficients, for JSON; `predictor_of` takes them back."""


@dataclass(frozen=True)
class Width:
    """seconds_of: of each of BY_WIDTH's counts, 0 or more."""

    kind: ClassVar[str] = "width"
    seconds_of: tuple[float, ...]

    @classmethod
    def fit(cls, steps: Sequence[StepShape], seconds: Sequence[float], weights: Sequence[float]) -> Self:
        """Least squares of predicted / measured - 1, each weighed."""
        return cls(tuple(relative_nnls([by_width(step) for step in steps], seconds, weights)))

    def step_s(self, step: StepShape) -> float:
        return float(np.dot(by_width(step), self.seconds_of))

    def table(self) -> dict[str, Any]:
        return {"seconds_of": dict(zip(BY_WIDTH, self.seconds_of, strict=True))}

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """The reverse of `table`."""
        return cls(tuple(float(table["seconds_of"][name]) for name in BY_WIDTH))


def relative_nnls(
    counts: Sequence[Features], seconds: Sequence[float], weights: Sequence[float]
) -> list[float]:
    """Numbers of 0 or more, a second's share per count, that make the weighed squares of counts * numbers / seconds - 1
    least. What is never counted is 0."""
    counts_NF = np.array(counts) / np.asarray(seconds)[:, None]
    scale_F = np.where(counts_NF.any(axis=0), counts_NF.max(axis=0), 1.0)
    root_N = np.sqrt(np.asarray(weights, dtype=float))
    found_F, _ = nnls(counts_NF / scale_F * root_N[:, None], root_N)
    return [_rounded(value) for value in found_F / scale_F]


@dataclass(frozen=True)
class Trees:
    """trees: each a row of nodes [feature, threshold, right] or [seconds]; a node's left one follows it."""

    kind: ClassVar[str] = "trees"
    trees: tuple[tuple[tuple[float, ...], ...], ...]

    @classmethod
    def fit(cls, steps: Sequence[StepShape], seconds: Sequence[float], weights: Sequence[float]) -> Self:
        """Raw features, raw seconds, TREES trees grown to the last timing, from a fixed seed."""
        counts_NF = np.array([of_paper(step) for step in steps], dtype=np.float32)
        forest = ExtraTreesRegressor(n_estimators=TREES, random_state=0, n_jobs=1)
        forest.fit(counts_NF, np.asarray(seconds), sample_weight=np.asarray(weights, dtype=float))
        return cls(tuple(tuple(_nodes(grown.tree_)) for grown in forest.estimators_))

    def step_s(self, step: StepShape) -> float:
        counts_F = of_paper(step).astype(np.float32)
        return float(np.mean([_answer(tree, counts_F) for tree in self.trees]))

    def table(self) -> dict[str, Any]:
        return {"trees": [[list(node) for node in tree] for tree in self.trees]}

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """The reverse of `table`."""
        return cls(tuple(tuple(tuple(map(float, node)) for node in tree) for tree in table["trees"]))


PREDICTORS: Mapping[str, type[Width] | type[Trees]] = {"width": Width, "trees": Trees}


def predictor_of(kind: str, table: Mapping[str, Any]) -> Predictor:
    """What a fingerprint's coefficients stand for. UserError where they are not those of that kind."""
    try:
        found = PREDICTORS[kind].of(table)
        _require_sound(found)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"fingerprint: the coefficients are none of the predictor {kind!r} ({type(error).__name__}: {error}); make "
            "the file anew with fedge fingerprint"
        ) from None
    return found


def _require_sound(predictor: Width | Trees) -> None:
    """ValueError for what cannot be followed to the end, or would make seconds below 0."""
    if isinstance(predictor, Width):
        if not all(0 <= value < np.inf for value in predictor.seconds_of) or not any(predictor.seconds_of):
            raise ValueError("numbers of 0 or more, not all 0, are wanted")
        return
    if not predictor.trees:
        raise ValueError("no trees")
    for tree in predictor.trees:
        for place, node in enumerate(tree):
            leaf = len(node) == 1 and 0 <= node[0] < np.inf
            split = len(node) == 3 and 0 <= node[0] < PAPER and place + 1 < node[2] < len(tree)
            if not (leaf or split):
                raise ValueError(f"a node is {list(node)}")
        if len(tree[-1]) != 1:
            raise ValueError("a tree ends without an answer")


def _answer(tree: tuple[tuple[float, ...], ...], counts_F: NDArray[np.float32]) -> float:
    place = 0
    while len(tree[place]) == 3:
        feature, threshold, right = tree[place]
        place = place + 1 if counts_F[int(feature)] <= threshold else int(right)
    return tree[place][0]


def _nodes(tree: Any) -> list[tuple[float, ...]]:
    """scikit-learn's arrays, whose left child is the next node."""
    return [
        (_rounded(tree.value[node][0][0]),)
        if tree.children_left[node] < 0
        else (int(tree.feature[node]), _rounded(tree.threshold[node]), int(tree.children_right[node]))
        for node in range(tree.node_count)
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
