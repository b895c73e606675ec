"""The networks that are measured, and the shape of the samples that each is measured on."""

import torch
from torch import nn

from fedge.models import build
from fedge.training.pruning.one_shot import prune

CIFAR_SHAPE = (3, 32, 32)
_CIFAR_NETWORKS = (
    "resnet8", "resnet20", "resnet110", "mobilenet_v2", "squeezenet", "vgg11", "vgg16", "alexnet",
)  # fmt: skip
SHAPES: dict[str, tuple[int, int, int]] = {
    "lenet": (1, 28, 28),
    "har_cnn": (9, 1, 128),
    **dict.fromkeys(_CIFAR_NETWORKS, CIFAR_SHAPE),
}
"""[C, H, W] of a sample."""


def network(name: str, level: float = 0.0, *, classes: int = 10) -> nn.Module:
    """With its initial weights, pruned to `level` (0: whole) by their l1 norms."""
    channels, *size = SHAPES[name]
    model = build(name, num_classes=classes, in_channels=channels, image_size=tuple(size))
    if level:
        prune(model, level, example_input=torch.zeros(1, *SHAPES[name]))
    return model
