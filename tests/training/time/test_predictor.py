"""What is learnt from timings, and that a file of it predicts the same."""

import json
from functools import cache

import numpy as np
import pytest

from fedge.errors import UserError
from fedge.training.time.features import BY_WIDTH, by_width
from fedge.training.time.predictor import PREDICTORS, Trees, Width, predictor_of
from fedge.training.time.sample import cut_network
from fedge.training.time.shape import StepShape, step_shape

PLANTED = (2e-4, 3e-5, 1e-9, 2e-9, 1e-9, 2e-11, 6e-11, 0.0, 0.0, 1e-4, 4e-9)
"""Seconds of each of BY_WIDTH's counts; two of them nothing."""


@cache
def steps() -> tuple[StepShape, ...]:
    """Of two small networks at two levels, dense and with pruned error maps."""
    found = []
    for name, shape in (("har_cnn", (9, 1, 32)), ("lenet", (1, 20, 20))):
        for level in (0.0, 0.4):
            model = cut_network(name, level, shape)
            found += [step_shape(model, shape, batch) for batch in (4, 16, 64)]
            found += [step_shape(model, shape, 16, keep=keep) for keep in (0.25, 0.5)]
    return tuple(found)


def planted(step: StepShape) -> float:
    return float(np.dot(by_width(step), PLANTED))


def test_width_finds_planted_coefficients() -> None:
    """Breaks if the fit does not find a machine that is exactly as it supposes."""
    fitted = Width.fit(steps(), [planted(step) for step in steps()], [1.0] * len(steps()))
    other = step_shape(cut_network("resnet8", 0.3, (3, 16, 16)), (3, 16, 16), 24)
    for step in steps():
        assert fitted.step_s(step) == pytest.approx(planted(step), rel=1e-4)
    assert fitted.step_s(other) == pytest.approx(
        planted(other), rel=0.15
    )  # counts that small networks hardly tell apart


def test_width_minimises_relative_errors_and_is_never_negative() -> None:
    """Breaks if long steps outvote short ones, or noise makes a coefficient by which more work takes less time."""
    noise = np.random.default_rng(0).lognormal(0, 0.2, len(steps()))
    seconds = [planted(step) * factor for step, factor in zip(steps(), noise, strict=True)]
    fitted = Width.fit(steps(), seconds, [1.0] * len(steps()))
    assert min(fitted.seconds_of) >= 0
    off = [fitted.step_s(step) / time_s for step, time_s in zip(steps(), seconds, strict=True)]
    assert abs(np.mean(off) - 1) < 0.05  # relative: neither short nor long ones are all on one side
    heavy = [100.0] * 3 + [1.0] * (len(steps()) - 3)
    weighed = Width.fit(steps(), seconds, heavy)
    close = [abs(weighed.step_s(step) / s - 1) for step, s in zip(steps()[:3], seconds[:3], strict=True)]
    assert np.mean(close) <= np.mean([abs(ratio - 1) for ratio in off[:3]]) + 1e-9


def test_trees_know_what_was_timed() -> None:
    """Breaks if a tree is written down otherwise than it grew."""
    seconds = [planted(step) for step in steps()]
    fitted = Trees.fit(steps(), seconds, [1.0] * len(steps()))
    dense = [(step, s) for step, s in zip(steps(), seconds, strict=True) if step.keep == 1]
    for step, time_s in dense:
        assert fitted.step_s(step) == pytest.approx(time_s, rel=1e-4)
    assert (
        min(seconds)
        <= fitted.step_s(step_shape(cut_network("lenet", 0.2, (1, 20, 20)), (1, 20, 20), 8))
        <= max(seconds)
    )


@pytest.mark.parametrize("kind", PREDICTORS)
def test_more_samples_take_longer(kind: str) -> None:
    """Breaks if a filter that keeps more would be predicted to end sooner; trees promise it from end to end alone."""
    seconds = [planted(step) for step in steps()]
    fitted = PREDICTORS[kind].fit(steps(), seconds, [1.0] * len(steps()))
    model = cut_network("lenet", 0.4, (1, 20, 20))
    predicted = [fitted.step_s(step_shape(model, (1, 20, 20), batch)) for batch in (4, 8, 16, 40, 64)]
    assert predicted[0] < predicted[-1]
    assert kind == "trees" or predicted == sorted(predicted)


@pytest.mark.parametrize("kind", PREDICTORS)
def test_a_file_predicts_the_same_bits(kind: str) -> None:
    """Breaks if a run on another host, from the same file, has other seconds."""
    fitted = PREDICTORS[kind].fit(steps(), [planted(step) for step in steps()], [1.0] * len(steps()))
    again = predictor_of(kind, json.loads(json.dumps(fitted.table())))
    assert [again.step_s(step) for step in steps()] == [fitted.step_s(step) for step in steps()]


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("width", {}),
        ("width", {"seconds_of": dict.fromkeys(BY_WIDTH, 0.0)}),
        ("width", {"seconds_of": dict.fromkeys(BY_WIDTH, -1.0)}),
        ("width", {"seconds_of": dict.fromkeys(BY_WIDTH, "fast")}),
        ("trees", {"trees": []}),
        ("trees", {"trees": [[[0, 1.0, 0], [1.0]]]}),  # goes round in circles
        ("trees", {"trees": [[[99, 1.0, 2], [1.0], [2.0]]]}),
        ("trees", {"trees": [[[1, 2.0]]]}),
        ("forest", {}),
    ],
)
def test_coefficients_that_are_none_are_refused(kind: str, table: dict[str, object]) -> None:
    """Breaks if a damaged file ends in a traceback, an endless loop, or in seconds below 0."""
    with pytest.raises(UserError, match="fingerprint: the coefficients are none of the predictor") as refusal:
        predictor_of(kind, table)
    assert "\n" not in str(refusal.value)
