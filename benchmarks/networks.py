"""The networks whose training step is measured: small enough for a processor, and unlike each other."""

import torch
from torch import nn

from fedge.models import build
from fedge.training.pruning.one_shot import prune

SHAPES = {
    "lenet": (1, 28, 28),
    "resnet20": (3, 32, 32),
    "mobilenet_v2": (3, 32, 32),
    "squeezenet": (3, 32, 32),
}


def network(name: str, level: float) -> nn.Module:
    """For ten classes, pruned to `level` (0: as it is)."""
    shape = SHAPES[name]
    model = build(name, num_classes=10, in_channels=shape[0], image_size=shape[1:])
    if level:
        prune(model, level, example_input=torch.zeros(1, *shape))
    return model
