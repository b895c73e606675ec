"""The level a device prunes to: the scenario's number, or the one it finds for itself by search."""

from collections.abc import Callable

from torch import Tensor, nn

from fedge.scenario.schema import LevelSearch, Pruning
from fedge.training.batches import Batches
from fedge.training.pruning.criteria import Criterion, Evidence
from fedge.training.pruning.level_search import Accuracy, Found, PeakMemory, StepMacs, Target, search_level


def remembered(criterion: Criterion) -> Criterion:
    """The criterion with its first answer kept: a search asks it of the same network and data at every level."""
    answer: list[Tensor] = []

    def rank(evidence: Evidence) -> Tensor:
        if not answer:
            answer.append(criterion(evidence))
        return answer[0]

    return rank


def find_level(
    model: nn.Module,
    pruning: Pruning,
    *,
    criterion: Criterion,
    example_input: Tensor,
    batch_size: int,
    memory_bytes: int,
    peak_bytes: Callable[[nn.Module], int],
    dense_macs: int,
    accuracy: Callable[[nn.Module], float],
    retrain: Callable[[nn.Module], float],
    batches: Callable[[], Batches],
    seed: int,
) -> Found:
    """Resolve `pruning.level` for this model on a device of `memory_bytes`; a number is taken as it is.

    `peak_bytes` says what training a network takes, `dense_macs` what a step of the unpruned one costs per instance,
    `accuracy` how good a network is as it stands (0..1), `retrain` how good it is after retraining.
    """
    choice = pruning.level
    if not isinstance(choice, LevelSearch):
        return Found(choice)
    targets: dict[str, Callable[[], Target]] = {
        "memory": lambda: PeakMemory(int(choice.share * memory_bytes), peak_bytes),
        "macs": lambda: StepMacs(
            int(choice.share * dense_macs * batch_size), batch_size, tuple(example_input.shape[1:])
        ),
        "accuracy": lambda: Accuracy(accuracy(model) - choice.slack, retrain),
    }
    return search_level(
        model,
        targets[choice.search](),
        example_input=example_input,
        criterion=criterion,
        **pruning.cut,
        batches=batches,
        seed=seed,
    )
