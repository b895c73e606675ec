"""Peak memory of training a head on features: the trunk's weights, what makes features, and a step of the head alone.

    the network's weights  +  features kept, or what draws them
        +  the larger of   a forward pass of the trunk, on FORWARD_BATCH samples   (own features alone)
                           a training step of the head on a batch of features

Bytes of tensors, as in peak.py.
"""

import contextlib
import itertools

import torch
from torch import nn

from fedge.device.memory.peak import LiveBytes, Optimizer, peak_training_memory
from fedge.scenario.training import Training
from fedge.training.counting.dry_run import explained, on_fake_or_real, stand_in
from fedge.training.features import Trunk
from fedge.training.task import Classes, Task
from fedge.training.torch_private import FakeTensorMode

FORWARD_BATCH = 2
"""Samples whose features a device makes at a time: the smaller, the less memory; the arithmetic is the same."""
FLOAT_BYTES, LABEL_BYTES = 4, 8


def peak_head_memory(
    trunk: Trunk,
    training: Training,
    *,
    samples: int,
    batch_size: int,
    input_shape: tuple[int, int, int],
    optimizer: Optimizer = "sgd",
    task: Task = Classes(),  # noqa: B008 - it has no state
) -> int:
    """Bytes at the peak of training the trunk's head on mini-batches [batch_size, F] of `training.source`'s features.

    samples: the device's training samples, of shape [C, H, W] `input_shape`.
    """
    head = trunk.head
    step = peak_training_memory(
        lambda: head, batch_size=batch_size, input_shape=(trunk.width,), optimizer=optimizer, task=task
    )
    weights = _bytes(trunk.model)
    own = training.source == "own"
    forward = peak_forward_memory(trunk.model, FORWARD_BATCH, input_shape) if own else 0
    return held_bytes(training, trunk, samples) + max(forward, weights - _bytes(head) + step)


def peak_forward_memory(model: nn.Module, batch_size: int, input_shape: tuple[int, int, int]) -> int:
    """Bytes at the peak of answering a batch [batch_size, *input_shape] in evaluation mode, the weights included."""

    def peak(fake: FakeTensorMode | None) -> int:
        with stand_in(model, fake, aside=False), fake or contextlib.nullcontext(), torch.no_grad():
            model.eval()
            live = LiveBytes(itertools.chain(model.parameters(), model.buffers()))
            with live:
                model(torch.empty(batch_size, *input_shape).zero_())
            return live.peak

    fake = not any(isinstance(layer, nn.LSTM) for layer in model.modules())
    with explained([batch_size, *input_shape]):
        return on_fake_or_real(peak, fake=fake)


def _bytes(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in itertools.chain(model.parameters(), model.buffers()))


def held_bytes(training: Training, trunk: Trunk, samples: int) -> int:
    """Of what is kept through the training: a device's own features and labels, or what was shipped to draw from.

    samples: the device's training samples. A generator takes means, covariance and the triangle that it draws by.
    """
    features, classes = trunk.width, trunk.head.out_features
    match training.source:
        case "own":
            return samples * (FLOAT_BYTES * features + LABEL_BYTES)
        case "replay":
            return FLOAT_BYTES * classes * training.adaptation.replayed * features
    return FLOAT_BYTES * (classes + 2 * features) * features
