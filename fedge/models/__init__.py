"""The networks that devices train: one file per family, all built by `build`."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

import torch
from torch import nn

from fedge.catalog.names import did_you_mean
from fedge.errors import UserError
from fedge.models.alexnet import AlexNet
from fedge.models.blocks import ImageSize
from fedge.models.har_cnn import HarCNN
from fedge.models.lenet import LeNet
from fedge.models.mobilenet_v2 import MobileNetV2
from fedge.models.resnet import ResNet
from fedge.models.squeezenet import SqueezeNet
from fedge.models.vgg import VGG
from fedge.seeding import derive_seed


class Constructor(Protocol):
    """Makes a family's network; raises UserError for an image that is too small for it."""

    def __call__(self, num_classes: int, in_channels: int, image_size: ImageSize) -> nn.Module: ...


MODELS: Mapping[str, Constructor] = MappingProxyType(
    {
        "lenet": LeNet,
        "alexnet": AlexNet,
        **{f"resnet{depth}": partial(ResNet, depth=depth) for depth in (8, 20, 32, 56, 74, 110)},
        "vgg11": partial(VGG, depth=11),
        "vgg16": partial(VGG, depth=16),
        "mobilenet_v2": MobileNetV2,
        "squeezenet": SqueezeNet,
        "har_cnn": HarCNN,
    }
)


def build(
    name: str, *, num_classes: int, in_channels: int, image_size: int | ImageSize, seed: int = 0
) -> nn.Module:
    """The network `name` of `MODELS` with fresh weights: [B, in_channels, H, W] to logits [B, num_classes].

    `image_size` is the side of a square or (height, width), in pixels. The initial weights are a function of
    `name` and `seed` alone; the caller's random state is left as it was.
    """
    if name not in MODELS:
        raise UserError(f"there is no model {name!r}; {did_you_mean(name, MODELS)}")
    if num_classes < 1 or in_channels < 1:
        raise UserError(
            f"model {name!r} needs num_classes and in_channels of at least 1, "
            f"got {num_classes} and {in_channels}"
        )
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "model", name))  # the CPU's alone
        return MODELS[name](num_classes, in_channels, (height, width))


__all__ = ["MODELS", "Constructor", "build"]
