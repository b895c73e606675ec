"""The networks that devices train: one file per family, all built by `build`."""

import math
from typing import Protocol

import torch
from torch import nn

from fedge.catalog import names
from fedge.catalog.named import Named
from fedge.errors import UserError
from fedge.models.blocks import ImageSize
from fedge.seeding import derive_seed


class Constructor(Protocol):
    """Makes a family's network, `width` times as wide as published; raises UserError for an image that is too small."""

    def __call__(
        self, num_classes: int, in_channels: int, image_size: ImageSize, *, width: float = 1.0
    ) -> nn.Module: ...


MODELS: Named[Constructor] = Named(names.MODELS)


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: int | ImageSize,
    seed: int = 0,
    width: float = 1.0,
) -> nn.Module:
    """The network `name` of `MODELS` with fresh weights: [B, in_channels, H, W] to logits [B, num_classes].

    `image_size` is the side of a square or (height, width), in pixels. `width` times the published channels and hidden
    units are built, above 0; 1: as published. The initial weights are a function of `name`, `seed` and `width` alone;
    the caller's random state is left as it was.
    """
    if name not in MODELS:
        raise UserError(f"there is no model {name!r}; {names.did_you_mean(name, MODELS)}")
    if num_classes < 1 or in_channels < 1:
        raise UserError(
            f"model {name!r} needs num_classes and in_channels of at least 1, "
            f"got {num_classes} and {in_channels}"
        )
    if not 0 < width < math.inf:
        raise UserError(
            f"model {name!r}: width is {width:g}; it must be above 0, as 0.5 for half the channels"
        )
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "model", name))  # the CPU's alone
        return MODELS[name](num_classes, in_channels, size, width=width)


__all__ = ["MODELS", "Constructor", "build"]
