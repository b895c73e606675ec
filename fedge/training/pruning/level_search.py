"""Find the pruning level on the device, by bisection.

ADaPT's search (arXiv 2006.08554): levels 5, 10, ... 95 %, start in the middle, prune the fine-tuned network,
retrain, and go up while the accuracy holds. With a test that is monotone in the level it takes

    ceil(log2(levels + 1)) tries        5 for the 19 levels

What we changed: bisection over list positions, so that no level is tried twice and the lowest can be found (theirs
rounds midpoints up to the grid: it often retrains a level that has failed, and never tries 5 %); accuracies are
compared as they are (theirs are cut to whole percent); every try starts from the same network with a new optimizer
(theirs starts tries after the first with one epoch at the last one's final rate). And beside accuracy, three
targets that need no retraining: peak training memory, and multiply-accumulates or seconds per step.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.batches import Batches
from fedge.training.macs import count_macs
from fedge.training.pruning.criteria import Criterion
from fedge.training.pruning.one_shot import LevelOutOfReachError, prune
from fedge.training.pruning.spare import spare_copy
from fedge.training.task import Classes, Task

LEVELS = tuple(percent / 100 for percent in range(5, 100, 5))


class Target(Protocol):
    """What the pruned network must do. `holds_below` says on which side of the boundary it does.

    True: it holds at low levels and fails above (accuracy); the highest such level is wanted.
    False: it fails at low levels and holds above (memory, MACs, time); the lowest such level is wanted.
    """

    holds_below: bool

    def holds(self, pruned: nn.Module) -> bool: ...

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Accuracy:
    """Not below `at_least` (0 .. 1; the unpruned network's, say) after `retrain`, which returns the accuracy."""

    at_least: float
    retrain: Callable[[nn.Module], float]
    holds_below = True

    def holds(self, pruned: nn.Module) -> bool:
        return self.retrain(pruned) >= self.at_least

    def __str__(self) -> str:
        return f"accuracy of at least {self.at_least:.4f}"


@dataclass(frozen=True)
class PeakMemory:
    """At most `limit_bytes` of peak training memory, as `peak_bytes` sees the network."""

    limit_bytes: int
    peak_bytes: Callable[[nn.Module], int]
    holds_below = False

    def holds(self, pruned: nn.Module) -> bool:
        return self.peak_bytes(pruned) <= self.limit_bytes

    def __str__(self) -> str:
        return f"peak training memory of at most {self.limit_bytes:,} bytes"


@dataclass(frozen=True)
class StepMacs:
    """At most `limit` multiply-accumulates in a training step on `batch_size` inputs [C, H, W]."""

    limit: int
    batch_size: int
    input_shape: tuple[int, ...]
    holds_below = False

    def holds(self, pruned: nn.Module) -> bool:
        return count_macs(pruned, self.input_shape).training * self.batch_size <= self.limit

    def __str__(self) -> str:
        return f"at most {self.limit:,} multiply-accumulates per step"


@dataclass(frozen=True)
class StepSeconds:
    """At most `limit_s` seconds for a training step, as `step_s` foresees it from the network's shape.

    at_best: where no level that the floors allow is so fast, the fastest will do.
    """

    limit_s: float
    step_s: Callable[[nn.Module], float]
    at_best: bool = False
    holds_below = False

    def holds(self, pruned: nn.Module) -> bool:
        return self.step_s(pruned) <= self.limit_s

    def __str__(self) -> str:
        return f"at most {self.limit_s:.3g} seconds per step"


@dataclass(frozen=True)
class Found:
    """The level found, and every level tried with its result, in order."""

    level: float
    tried: dict[float, bool] = field(default_factory=dict)

    @property
    def tries(self) -> int:
        """How many networks were pruned; with an accuracy target, retrained too."""
        return len(self.tried)


def search_level(
    model: nn.Module,
    target: Target,
    *,
    example_input: Tensor,
    criterion: str | Criterion | None = None,
    accounting: str = "exact",
    round_to: int = 1,
    batches: Callable[[], Batches] | None = None,
    seed: int = 0,
    levels: Sequence[float] = LEVELS,
    task: Task = Classes(),  # noqa: B008 - it has no state
) -> Found:
    """The level of `levels` (ascending) at which pruning `model` just meets `target`. `model` stays as it is.

    Level 0, the network uncut, is one more level below all: with an accuracy target it holds without a try, with
    the others it is tried like the rest. `batches` is called for each try; the other arguments are those of `prune`
    and must be the same when the level found is cut. UserError if no level that the floors allow meets a memory,
    MAC or time target, and if `levels` do not ascend.
    """
    if list(levels) != sorted(set(levels)):
        raise UserError(f"levels to search are {list(levels)}; they must ascend, each once: sort them")
    cut = partial(
        prune,
        example_input=example_input,
        criterion=criterion,
        accounting=accounting,
        round_to=round_to,
        seed=seed,
        task=task,
    )
    tried: dict[float, bool] = {}
    out_of_reach: set[float] = set()

    def is_beyond(level: float) -> bool:
        """True above the boundary. No network at all is beyond it, whatever the target."""
        pruned = spare_copy(model)
        try:
            cut(pruned, level, batches=batches and batches())
        except LevelOutOfReachError:
            out_of_reach.add(level)
            return True
        tried[level] = target.holds(pruned)
        return tried[level] != target.holds_below

    if target.holds_below:
        above = bisect_left(levels, True, key=is_beyond)
        return Found(levels[above - 1] if above else 0.0, tried)
    candidates = [0.0, *levels]
    found = bisect_left(candidates, True, key=is_beyond)
    if found == len(candidates) or candidates[found] in out_of_reach:
        if isinstance(target, StepSeconds) and target.at_best:
            return Found(candidates[found - 1], tried)
        raise UserError(
            f"no pruning level that the floors allow meets the target of {target}: "
            "take a smaller model or batch, or a larger device"
        )
    return Found(candidates[found], tried)
