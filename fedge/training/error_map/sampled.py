"""Convolutions whose error is pruned without bias, number by number (element.py) or unit by unit (units.py).

The error is pruned at the convolution's output, behind the backward pass of its norm, which is dense; a bias takes the
exact error, which costs it no product. What is counted is what hardware must multiply that skips what was dropped:

    each product's MACs  =  numbers that stay * kernel          element: those that are not zero
                                                                pixel, map: those of the kept units, zero or not

Rounding in quantised training comes after, and leaves a zero a zero.
Shapes: B instances, C channels out, I in, H x W pixels.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedge.training.error_map.backward import Rounding, conv_gradients
from fedge.training.error_map.channels import CHANNELS_LAST
from fedge.training.error_map.convolution import convolve
from fedge.training.error_map.element import prune_elements
from fedge.training.error_map.gathered import gathered_gradients
from fedge.training.error_map.geometry import Geometry
from fedge.training.error_map.threshold import Predicted
from fedge.training.error_map.units import Drawn, draw, kept_units, map_norms, pixel_norms, spread_units
from fedge.training.macs import BackwardCost, kernel_macs
from fedge.training.torch_private import FakeTensor


class Pruned(NamedTuple):
    """An error, and what it costs. numbers: how many are multiplied; adds: additions and comparisons made to choose.

    pixels: those that are to be gathered of an error that is whole still; None: what is dropped is zero in it.
    """

    error_BCHW: Tensor
    numbers: int
    adds: int
    pixels: Drawn | None = None


Prune = Callable[[Tensor], Pruned]
"""Of the error of one layer and mini-batch, in channels-last order."""


class SampledLayer(NamedTuple):
    """A convolution as its backward needs it, its tensors aside; fields as in PrunedLayer."""

    geometry: Geometry
    prune: Prune
    record: Callable[[BackwardCost], None]
    roundings: tuple[Rounding, Rounding] | None = None


class _Context(Protocol):
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, Tensor, Tensor | None]
    layer: SampledLayer

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...


class SampledConv(torch.autograd.Function):
    """Convolution whose backward multiplies a pruned error. x is in channels-last order, and padded already where zeros
    do not do."""

    @staticmethod
    def forward(
        ctx: _Context, x_BIHW: Tensor, weight_CIJL: Tensor, bias_C: Tensor | None, layer: SampledLayer
    ) -> Tensor:
        ctx.save_for_backward(x_BIHW, weight_CIJL, bias_C)
        ctx.layer = layer
        return convolve(x_BIHW, weight_CIJL, bias_C, layer.geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, error_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_BIHW, weight_CIJL, _ = ctx.saved_tensors
        layer, (for_x, for_weight, for_bias, _) = ctx.layer, ctx.needs_input_grad
        error_BCHW = error_BCHW.contiguous(memory_format=CHANNELS_LAST)
        bias = error_BCHW.sum((0, 2, 3)) if for_bias else None
        pruned = layer.prune(error_BCHW)
        del error_BCHW
        macs = pruned.numbers * kernel_macs(weight_CIJL)
        layer.record(BackwardCost(macs * for_x, macs * for_weight, pruned.adds))
        return *_products(pruned, x_BIHW, weight_CIJL, layer, (for_x, for_weight)), bias, None


def _products(
    pruned: Pruned, x_BIHW: Tensor, weight_CIJL: Tensor, layer: SampledLayer, wants: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Of x and weight, those of them that `wants` a gradient."""
    if pruned.pixels is not None:
        return gathered_gradients(
            pruned.error_BCHW, pruned.pixels, x_BIHW, weight_CIJL, layer.geometry, wants
        )
    grad_x, grad_weight, _ = conv_gradients(
        pruned.error_BCHW,
        torch.arange(len(weight_CIJL), device=x_BIHW.device),
        (x_BIHW, weight_CIJL, None),
        layer.geometry,
        layer.roundings and _sparse(layer.roundings),
        (*wants, False),
    )
    return grad_x, grad_weight


def _sparse(roundings: tuple[Rounding, Rounding]) -> tuple[Rounding, Rounding]:
    narrow, wide = (partial(_rounded_but_zeros, rounding) for rounding in roundings)
    return narrow, wide


def _rounded_but_zeros(rounding: Rounding, error: Tensor) -> Tensor:
    """Even steps from the least to the largest number need not meet zero."""
    return rounding(error) * (error != 0)


class Sampler:
    """Prunes the errors of a network's layers by one of the unbiased kinds.

    share: kept, by layer; of `element` with threshold "normal", 1 - p. density: the share that stayed in the latest
    backward pass, by layer.
    """

    def __init__(self, kind: str, threshold: str, generator: torch.Generator) -> None:
        self._prune = {"element": self._elements, "pixel": self._pixels_in_place, "map": self._maps}[kind]
        self._normal = threshold == "normal"
        self._tau = Predicted(threshold)
        self._generator = generator
        self._orders: dict[int, Tensor] = {}
        self.density: dict[str, float] = {}

    def __call__(self, name: str, share: float, error_BCHW: Tensor, *, gather: bool = False) -> Pruned:
        """The pruned error of a layer, which is in channels-last order. gather: the kept pixels will be."""
        pruned = self._pixels(share, error_BCHW, gather) if gather else self._prune(name, share, error_BCHW)
        self.density[name] = pruned.numbers / max(1, error_BCHW.numel())
        return pruned

    def _elements(self, name: str, share: float, error_BCHW: Tensor) -> Pruned:
        magnitude = error_BCHW.abs()
        tau = self._tau(name, magnitude, 1 - share if self._normal else share)
        pruned_BCHW, left = prune_elements(error_BCHW, magnitude, tau, self._generator)
        numbers = error_BCHW.numel() if isinstance(left, FakeTensor) else int(left)
        return Pruned(pruned_BCHW, numbers, 2 * error_BCHW.numel())  # into a mean, and against tau

    def _pixels_in_place(self, name: str, share: float, error_BCHW: Tensor) -> Pruned:
        return self._pixels(share, error_BCHW, gather=False)

    def _pixels(self, share: float, error_BCHW: Tensor, gather: bool) -> Pruned:
        instances, channels, height, width = error_BCHW.shape
        pixels = instances * height * width
        drawn = self._drawn(pixel_norms(error_BCHW), share)
        cost = len(drawn.unit_K) * channels, error_BCHW.numel() + pixels
        if gather:
            return Pruned(error_BCHW, *cost, drawn)
        return Pruned(error_BCHW * spread_units(drawn, pixels).view(instances, 1, height, width), *cost)

    def _maps(self, name: str, share: float, error_BCHW: Tensor) -> Pruned:
        instances, channels, height, width = error_BCHW.shape
        maps = instances * channels
        drawn = self._drawn(map_norms(error_BCHW), share)
        cost = len(drawn.unit_K) * height * width, error_BCHW.numel() + maps
        return Pruned(error_BCHW * spread_units(drawn, maps).view(instances, channels, 1, 1), *cost)

    def _drawn(self, norm_N: Tensor, share: float) -> Drawn:
        units = len(norm_N)
        if units not in self._orders:
            self._orders[units] = torch.randperm(units, generator=self._generator).to(norm_N.device)
        return draw(norm_N, kept_units(units, share), self._orders[units], self._generator)
