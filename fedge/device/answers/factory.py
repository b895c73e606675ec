"""What the untouched factory model gets right on a client's test rows: the measure of what a device has learned.

N: the client's test rows, in stored order.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedge.catalog.facts import Task
from fedge.data.shard import Shard
from fedge.training.stats import Evaluation


@dataclass(frozen=True, eq=False)
class FactoryAnswers:
    """Which test rows it gets right as it was shipped (`right_N`), and told the client's classes (`told_N`); bool.

    Told: the answer is the best of the classes of the client's own training rows, which cost it nothing to know; None
    where no class is asked for. Of labels `right_N` is [N, K]; of numbers `error_N` says how far off it is.
    """

    right_N: Tensor
    told_N: Tensor | None = None
    error_N: Tensor | None = None

    @classmethod
    def kept(
        cls, tensors: Mapping[str, Tensor], count: int, task: Task = "classes"
    ) -> "FactoryAnswers | None":
        """From what `tensors` gave in an earlier round; None where that was not for `count` test rows of the task."""
        wanted = {"right", *_BESIDE.get(task, ())}
        if tensors.keys() != wanted or any(len(tensor) != count for tensor in tensors.values()):
            return None
        return cls(tensors["right"], tensors.get("told"), tensors.get("error"))

    @classmethod
    def asked(cls, evaluate: Callable[[Sequence[int] | None], Evaluation], shard: Shard) -> "FactoryAnswers":
        """By evaluating the factory model on the test rows of `shard`, among all classes (None) or some."""
        shipped, told = evaluate(None), None
        if shard.task == "classes":
            told = evaluate(shard.own_classes).right_N
        return cls(shipped.right_N, told, shipped.error_N)

    def tensors(self) -> dict[str, Tensor]:
        """For the device's state: neither the factory model nor the test rows change, so it is asked once."""
        held = {"right": self.right_N, "told": self.told_N, "error": self.error_N}
        return {name: tensor for name, tensor in held.items() if tensor is not None}

    def tallies(self, right_N: Tensor, error_N: Tensor | None = None) -> dict[str, Any]:
        """The report's figures beside `right_N` and `error_N`, of the device's own network on the same rows.

        gained - lost is the difference of the two networks' right answers.
        """
        counts: dict[str, Any] = {
            "factory_correct": int(torch.count_nonzero(self.right_N)),
            "test_gained": int(torch.count_nonzero(right_N & ~self.right_N)),
            "test_lost": int(torch.count_nonzero(self.right_N & ~right_N)),
        }
        if self.told_N is not None:
            return counts | {"told_correct": int(torch.count_nonzero(self.told_N))}
        before_N, now_N = _badness(self.right_N, self.error_N), _badness(right_N, error_N)
        counts["test_better"] = int(torch.count_nonzero(now_N < before_N))
        counts["test_worse"] = int(torch.count_nonzero(now_N > before_N))
        if self.error_N is not None:
            counts["factory_error_sum"] = math.fsum(self.error_N.tolist())
        return counts


_BESIDE = {"classes": ("told",), "numbers": ("error",)}


def _badness(right_N: Tensor, error_N: Tensor | None) -> Tensor:
    """Of each row [N]: its error, or how many of its labels are wrong."""
    if error_N is not None:
        return error_N
    wrong_N = ~right_N
    return wrong_N.sum(1) if wrong_N.dim() == 2 else wrong_N.long()
