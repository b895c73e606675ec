"""A few timed steps of a scenario's own network, which a fingerprint is fitted to beside its sample."""

from collections.abc import Callable, Iterator

from torch import nn

from fedge.catalog.datasets import dataset_facts
from fedge.errors import UserError
from fedge.network.factory import initial_model
from fedge.network.objective import task_named, trained_by
from fedge.scenario.schema import Scenario
from fedge.training.pruning.one_shot import LevelOutOfReachError
from fedge.training.pruning.spare import spare_copy
from fedge.training.time.learn import PROBE_WEIGHT, Row, rows_of, step_of
from fedge.training.time.sample import Cell, cut_at_random
from fedge.training.time.timing import ROUNDS, time_steps
from fedge.training.update.what import freeze

PROBES = ((0.0, 1.0), (0.0, 0.25), (0.3, 0.5), (0.5, 1.0), (0.7, 1.0), (0.7, 0.25))
"""Level, and share of the scenario's batch."""


def probe(
    scenario: Scenario, *, rounds: int = ROUNDS, told: Callable[[int, int], None] = lambda done, of: None
) -> list[Row]:
    """Time six steps of the scenario's network as `[training]` freezes it, at several levels and batches."""
    facts, training = dataset_facts(scenario.data.dataset), scenario.training
    task = trained_by(task_named(facts.task), training.loss)
    whole = initial_model(scenario, facts.num_classes, facts.shape, facts.task)
    cells, steps = [], []
    for level, share in PROBES:
        model, reached = _cut(whole, level, facts.shape)
        freeze(model, training.what, facts.shape)
        cell = Cell("own", reached, max(1, round(share * training.batch_size)))
        cells.append(cell)
        steps.append(step_of(model, facts.shape, cell, classes=facts.num_classes, task=task))
    return rows_of(cells, steps, time_steps(steps, rounds=rounds, told=told), weight=PROBE_WEIGHT)


def _cut(whole: nn.Module, level: float, shape: tuple[int, int, int]) -> tuple[nn.Module, float]:
    """A copy at the level, or at the next that the floors allow, and that level; uncut where nothing can be."""
    for reached in _levels_down(level):
        model = spare_copy(whole)
        try:
            cut_at_random(model, reached, shape, seed=0)
        except LevelOutOfReachError:
            continue
        except UserError:  # a network that cannot be cut is probed whole
            break
        return model, reached
    return spare_copy(whole), 0.0


def _levels_down(level: float) -> Iterator[float]:
    while level > 0.05:
        yield round(level, 2)
        level *= 0.75
    yield 0.0
