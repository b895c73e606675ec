"""The level a device prunes to: the scenario's number, or the one it finds for itself by search."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from fedge.scenario.training import LevelSearch, Pruning
from fedge.training.batches import Batches
from fedge.training.pruning.criteria import Criterion, Evidence
from fedge.training.pruning.level_search import (
    Accuracy,
    Found,
    PeakMemory,
    StepMacs,
    StepSeconds,
    Target,
    search_level,
)
from fedge.training.task import Classes, Task


def remembered(criterion: Criterion) -> Criterion:
    """The criterion with its answers kept: a search asks it of the same network, units and data at every level."""
    answers: dict[bytes, Tensor] = {}

    def rank(evidence: Evidence) -> Tensor:
        units = evidence.coupling.key()
        if units not in answers:
            answers[units] = criterion(evidence)
        return answers[units]

    return rank


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What a cut goes by: how channels are ranked, on which data and task, on an input of which shape [1, C, H, W]."""

    criterion: Criterion
    batches: Callable[[], Batches]
    example_input: Tensor
    seed: int
    task: Task = Classes()  # noqa: RUF009 - it has no state


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a search holds a network against, on a device of `memory_bytes` that trains on batches of `batch_size`.

    `peak_bytes` says what training a network takes, `dense_macs` what a step of the unpruned one costs per sample,
    `accuracy` how good a network is as it stands (0..1), `retrain` how good it is after retraining. `step_s`: virtual
    seconds of a training step, of which a round takes `steps`.
    """

    batch_size: int
    memory_bytes: int
    peak_bytes: Callable[[nn.Module], int]
    dense_macs: int
    step_s: Callable[[nn.Module], float]
    steps: int
    accuracy: Callable[[nn.Module], float]
    retrain: Callable[[nn.Module], float]


def find_level(model: nn.Module, pruning: Pruning, ranking: Ranking, bounds: Bounds) -> Found:
    """Resolve `pruning.level` for this model; a number is taken as it is."""
    choice = pruning.level
    if not isinstance(choice, LevelSearch):
        return Found(choice)
    return search_level(
        model,
        _target(model, choice, ranking, bounds),
        example_input=ranking.example_input,
        criterion=ranking.criterion,
        **pruning.cut,
        batches=ranking.batches,
        seed=ranking.seed,
        task=ranking.task,
    )


def _target(model: nn.Module, choice: LevelSearch, ranking: Ranking, bounds: Bounds) -> Target:
    if choice.search == "memory":
        return PeakMemory(int(choice.share * bounds.memory_bytes), bounds.peak_bytes)
    if choice.search == "macs":
        step_macs = int(choice.share * bounds.dense_macs * bounds.batch_size)
        return StepMacs(step_macs, bounds.batch_size, tuple(ranking.example_input.shape[1:]))
    if choice.search == "time":
        if choice.limit_s is None:
            return StepSeconds(choice.share * bounds.step_s(model), bounds.step_s)
        return StepSeconds(choice.limit_s / bounds.steps, bounds.step_s, at_best=True)
    return Accuracy(bounds.accuracy(model) - choice.slack, bounds.retrain)
