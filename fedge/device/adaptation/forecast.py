"""What low-cost adaptation will cost, without data."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from fedge.network.shipped import shipped_bytes
from fedge.scenario.training import Training
from fedge.training.features import Trunk
from fedge.training.macs import count_forward, count_macs
from fedge.training.stats import TrainStats


def head_stats(training: Training, model: nn.Module, input_shape: Sequence[int]) -> TrainStats:
    """Of one sample in all local epochs of a round: a head's steps, and its features once where they are its own."""
    trunk = Trunk.of(model, input_shape)
    step = count_macs(trunk.head, (trunk.width,)).training
    once = trunk.macs if training.source == "own" else 0
    return TrainStats(samples_seen=training.epochs, macs_forward=training.epochs * step + once)


def foreseen(
    training: Training, model: nn.Module, input_shape: Sequence[int], classes: int, *, looked_at: int
) -> dict[str, Any]:
    """Of a device class: the MACs of estimating its prior once, from that many rows, and what is shipped to it.

    Empty where the settings ask for neither.
    """
    found: dict[str, Any] = {}
    if training.finds_prior:
        found["prior_macs"] = looked_at * count_forward(model, input_shape).forward
    if training.finds_prior or training.source is not None:
        width = 0 if training.source is None else Trunk.of(model, input_shape).width
        found["shipped_bytes"] = shipped_bytes(training, classes, width)
    return found
