"""The learning rate as a function of how much of the training is done.

    constant   1
    cosine     least + (1 - least) * (1 + cos(pi * share)) / 2          arXiv 1608.03983, without restarts
    step       factor ^ (number of the shares `at` that are reached)

times the rate that the optimizer was made with, group by group. `share` is that of the mini-batches on offer, whether a
filter keeps any of them or not, so that the rate depends on nothing that a device learns.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from fedge.training.batches import Batches, Pair

Curve = Callable[[float], float]
"""Share of the training that is done, 0 <= share < 1 -> factor on the learning rate, at most 1."""


def cosine(least: float = 0.0) -> Curve:
    """From 1 down to `least` (0 <= least < 1) along half a cosine."""
    return lambda share: least + (1 - least) * (1 + math.cos(math.pi * share)) / 2


def steps(at: Sequence[float], factor: float) -> Curve:
    """Multiplied by `factor` at each of the shares `at`."""
    return lambda share: factor ** sum(share >= reached for reached in at)


class Decay:
    """Sets the rates of `optimizer`, which are those that it was made with times `curve`."""

    def __init__(self, optimizer: torch.optim.Optimizer, curve: Curve) -> None:
        self._optimizer = optimizer
        self._curve = curve
        self._rates = [group["lr"] for group in optimizer.param_groups]

    def over(self, batches: Batches, *, count: int, start: float, end: float) -> Iterator[Pair]:
        """The `count` batches, which take the training from the share `start` to the share `end`."""
        for number, batch in enumerate(batches):
            factor = self._curve(start + (end - start) * number / count)
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
            yield batch
