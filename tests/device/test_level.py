"""A device's search cuts with the settings that the device cuts with."""

import copy

import torch

from fedge.device.level import Bounds, Ranking, find_level, remembered
from fedge.device.pruning import DrawnWhenLookedAt
from fedge.models import build
from fedge.scenario.training import LevelSearch, Pruning
from fedge.training.pruning.criteria import CRITERIA
from fedge.training.pruning.one_shot import prune
from tests.training.networks import parameters


def test_search_counts_as_the_scenario_does():
    """The device cuts by `pruning.accounting`; a level found by another count would not fit its memory once cut."""
    model = build("resnet20", num_classes=100, in_channels=3, image_size=32)
    example_input, limit = torch.zeros(1, 3, 32, 32), 28_500
    pruning = Pruning(level=LevelSearch(search="memory"), criterion="l1", accounting="adapt")
    criterion = remembered(CRITERIA[pruning.criterion])
    ranking = Ranking(criterion=criterion, batches=lambda: (), example_input=example_input, seed=0)
    bounds = Bounds(
        batch_size=1,
        memory_bytes=limit,
        peak_bytes=parameters,
        dense_macs=0,
        step_s=lambda _: 0.0,
        steps=1,
        accuracy=lambda _: 0.0,
        retrain=lambda _: 0.0,
    )
    found = find_level(model, pruning, ranking, bounds)
    pruned = copy.deepcopy(model)
    prune(
        pruned, found.level, example_input=example_input, criterion=criterion, accounting=pruning.accounting
    )
    assert parameters(pruned) <= limit


def test_a_search_draws_what_it_ranks_by_once():
    """Breaks if a search is charged for the ranking data at every level that it tries, though it looks at them once."""
    model = build("lenet", num_classes=10, in_channels=1, image_size=16)
    drawn = []

    def draw():
        drawn.append(1)
        yield torch.randn(8, 1, 16, 16), torch.zeros(8, dtype=torch.int64)

    ranking = Ranking(
        criterion=remembered(CRITERIA["activation"]),
        batches=lambda: DrawnWhenLookedAt(draw),
        example_input=torch.zeros(1, 1, 16, 16),
        seed=0,
    )
    bounds = Bounds(
        batch_size=1,
        memory_bytes=parameters(model),
        peak_bytes=parameters,
        dense_macs=0,
        step_s=lambda _: 0.0,
        steps=1,
        accuracy=lambda _: 0.0,
        retrain=lambda _: 0.0,
    )
    found = find_level(model, Pruning(level=LevelSearch(search="memory", share=0.4)), ranking, bounds)
    assert found.tries > 2
    assert len(drawn) == 1
