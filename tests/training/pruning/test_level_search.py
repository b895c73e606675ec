"""The search finds the level, in few tries, and no level twice."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedge.errors import UserError
from fedge.training.macs import count_macs
from fedge.training.pruning.level_search import LEVELS, Accuracy, Found, PeakMemory, StepMacs, search_level
from tests.training.networks import INPUT_SHAPE, ThreeBranches, parameters

EXAMPLE = torch.zeros(1, *INPUT_SHAPE)


class Wide(nn.Sequential):
    """Wide enough for every level up to 0.9."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 5),
        )


def search_accuracy(boundary: float) -> tuple[Found, list[float]]:
    """A network whose accuracy, after retraining, holds up to `boundary` parameters removed."""
    model, retrained = Wide(), []
    dense = parameters(model)

    def retrain(pruned: nn.Module) -> float:
        removed = 1 - parameters(pruned) / dense
        retrained.append(removed)
        return 0.5 if removed <= boundary else 0.49

    return search_level(model, Accuracy(0.5, retrain), example_input=EXAMPLE, levels=LEVELS[:18]), retrained


@settings(max_examples=10, deadline=None)
@given(last=st.integers(0, 18))
def test_finds_the_highest_level_that_holds(last):
    """Every boundary from nothing to everything, 5 % included, which the paper's search never tries."""
    found, retrained = search_accuracy(last * 0.05 + 0.02)
    assert found.level == pytest.approx(last * 0.05)
    assert len(retrained) == found.tries == len(found.tried) <= math.ceil(math.log2(18 + 1))


def test_unpruned_network_is_not_touched():
    """Every try must start from the same fine-tuned network."""
    model = ThreeBranches()
    before = parameters(model)
    search_level(model, Accuracy(0.0, lambda _: 1.0), example_input=EXAMPLE, levels=(0.2, 0.4))
    assert parameters(model) == before


def test_accuracy_is_compared_as_it_is():
    """The paper's code cuts both to whole percent: 60.0 would pass for 60.9."""
    found = search_level(Wide(), Accuracy(0.609, lambda _: 0.600), example_input=EXAMPLE, levels=(0.3, 0.6))
    assert found.level == 0.0


def test_memory_target_takes_the_lowest_level_that_fits():
    """More pruning than the device needs is accuracy given away."""
    model = Wide()
    limit = int(0.62 * parameters(model))
    found = search_level(model, PeakMemory(limit, parameters), example_input=EXAMPLE)
    assert found.level == pytest.approx(0.4)


def test_no_pruning_where_the_network_fits_as_it_is():
    """Level 0 is tried for memory and MACs: a large device needs no cut."""
    found = search_level(Wide(), PeakMemory(10**9, parameters), example_input=EXAMPLE)
    assert found.level == 0.0


def test_macs_target_is_per_step():
    """A step is forward and backward on a whole batch."""
    model = Wide()
    dense = count_macs(model, INPUT_SHAPE).training * 8
    found = search_level(model, StepMacs(dense // 2, 8, INPUT_SHAPE), example_input=EXAMPLE)
    assert found.level > 0
    assert found.tried[found.level]
    assert not found.tried.get(round(found.level - 0.05, 2), False)


def test_target_that_no_level_meets_is_an_error():
    """The device must say so rather than train past its memory."""
    with pytest.raises(UserError, match="peak training memory of at most 3 bytes"):
        search_level(Wide(), PeakMemory(3, parameters), example_input=EXAMPLE)


def test_levels_out_of_reach_are_no_answer():
    """The floors forbid 0.95 here; the search must not return a level that prune refuses."""
    found = search_level(
        ThreeBranches(), Accuracy(0.0, lambda _: 1.0), example_input=EXAMPLE, levels=(0.3, 0.99)
    )
    assert found.level == 0.3
    with pytest.raises(UserError, match="that the floors allow"):
        search_level(ThreeBranches(), PeakMemory(30, parameters), example_input=EXAMPLE, levels=(0.3, 0.99))


def test_data_is_fresh_for_every_try():
    """Batches can be gone through once; a second try on an exhausted iterator would rank by nothing."""
    calls = []

    def batches():
        calls.append(1)
        return iter([(torch.randn(2, *INPUT_SHAPE), torch.tensor([0, 1]))])

    found = search_level(
        Wide(), Accuracy(0.5, lambda _: 1.0), example_input=EXAMPLE, criterion="taylor", batches=batches,
        levels=(0.2, 0.4, 0.6),
    )  # fmt: skip
    assert found.level == 0.6
    assert len(calls) == found.tries == 2


@pytest.mark.parametrize("levels", [(0.4, 0.2), (0.2, 0.2)])
def test_levels_that_do_not_ascend_are_refused(levels):
    """Bisection over an unsorted list says that no level meets the target, though one does."""
    with pytest.raises(UserError, match="must ascend"):
        search_level(Wide(), PeakMemory(10**9, parameters), example_input=EXAMPLE, levels=levels)
