"""The filter's own networks (EIF + EMP, section IV): a slim LeNet for one-channel images, ResNet-8 for others.

Slim LeNet: 3x3 convolutions with 6 and 16 kernels, each followed by ReLU and 2x2 pooling, and one linear layer.
ResNet-8 is `fedge.models`' own with its batch norms replaced by GroupNorm (early.py says why).
Both end in two outputs, L and H.
"""

from typing import Literal

import torch
from torch import nn

from fedge.errors import UserError
from fedge.models import build

FilterNetworkName = Literal["auto", "slim_lenet", "resnet8"]
NORM_GROUPS = 4


def build_filter_network(
    name: FilterNetworkName,
    *,
    in_channels: int,
    image_size: tuple[int, int],
    downsample: int = 1,
    seed: int = 0,
) -> nn.Module:
    """[B, C, H, W] to logits [B, 2], image_size (H, W); "auto" is slim_lenet for one channel and resnet8 for more.

    `downsample` averages the image over that many pixels each way first (1: not), never below 4 pixels a side.
    """
    if downsample < 1:
        raise UserError(f"instance filter: downsample is {downsample}; take 1 (the whole image), 2, 4, ...")
    down, across = (downsample if side >= 4 * downsample else 1 for side in image_size)
    height, width = image_size[0] // down, image_size[1] // across
    if name == "auto":
        name = "slim_lenet" if in_channels == 1 else "resnet8"
    if name == "slim_lenet":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's alone
            network: nn.Module = _slim_lenet(in_channels, height, width)
    elif name == "resnet8":
        network = build(
            "resnet8", num_classes=2, in_channels=in_channels, image_size=(height, width), seed=seed
        )
        _replace_batch_norms(network)
    else:
        raise UserError(f"instance filter: network is '{name}'; take 'auto', 'slim_lenet' or 'resnet8'")
    return network if downsample == 1 else nn.Sequential(nn.AvgPool2d((down, across)), network)


def _slim_lenet(in_channels: int, height: int, width: int) -> nn.Sequential:
    rows, columns = ((-(-side // 2) + 1) // 2 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(6, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(16 * rows * columns, 2),
    )


def _replace_batch_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(NORM_GROUPS, child.num_features))
        else:
            _replace_batch_norms(child)
