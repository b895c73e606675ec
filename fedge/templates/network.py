"""A network: what every device ships with. Guide: docs/guide/own_network.md.

[model]
program = "net.py"
args = { width = 16 }
"""

from torch import nn


def build(num_classes: int, in_channels: int, image_size: tuple[int, int], width: int = 16) -> nn.Module:
    """From [B, in_channels, *image_size] to [B, num_classes] logits. fedge seeds its weights and trains it."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, num_classes),
    )
