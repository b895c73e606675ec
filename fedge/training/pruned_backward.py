"""Backward passes of convolution, and of convolution with batch norm, through the kept error maps alone.

The blocks conv -> norm -> ReLU of a network have an error map delta_BCHW behind their norm (behind their convolution,
where there is no norm); PyTorch's own ReLU has masked it already. There the channels are ranked; batch norm acts
channel by channel (kept_norm.py), so that norm and convolution work on the K kept maps delta_BKHW only. A dropped
channel gives nothing to the norm's shift and scale, to the kernel, or to the error that goes on:

    grad W_k   = sum over instances of  x * delta_k                    k kept, else 0      (EIF + EMP, equation 12)
    grad x     = sum over kept k of     rot(W_k) * delta_k                                 (equation 8)

The norm's forward pass makes one autograd node of both layers, since autograd hands on gradients of full shape only.
The node of the convolution alone is left for other readers of its output, if there are any.
Shapes: B instances, C channels out (K kept), I channels in, H x W pixels, J, L a kernel's rows and columns.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fedge.training.kept_maps import gather, norm_per_channel, spread, spread_kernels
from fedge.training.kept_norm import VECTOR_WIDTH, norm_backward, norm_forward
from fedge.training.macs import BackwardCost, kernel_macs

CHANNELS_LAST = torch.channels_last

Rounding = Callable[[Tensor], Tensor]
"""What quantised training does to an error before a product."""


@dataclass(frozen=True)
class Geometry:
    """What a convolution does besides its weights."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    depthwise: bool
    """Every output channel has input channels of its own: to drop its map is to drop the group."""

    @cached_property
    def skips_pixels(self) -> bool:
        """Whether the kernel is one point and reads every so manieth pixel, as on a shortcut."""
        return self.kernel == (1, 1) and self.padding == (0, 0) and self.stride != (1, 1)

    @cached_property
    def exchangeable(self) -> bool:
        """Whether error and input may change places in the weight gradient at no cost: both have the same size."""
        reach = tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True))
        return self.stride == (1, 1) and self.groups == 1 and reach == tuple(2 * p for p in self.padding)


class PrunedLayer(NamedTuple):
    """A convolution as its backward needs it, its tensors aside.

    best: kept channels [K] of norms [C]; None keeps all. record: is told what the backward cost.
    roundings: of the error for x, of the error for W, in quantised training.
    """

    geometry: Geometry
    best: Callable[[Tensor], Tensor] | None
    record: Callable[[BackwardCost], None]
    roundings: tuple[Rounding, Rounding] | None = None

    def select(self, error_BCHW: Tensor, statistics_2C: Tensor | None = None) -> Tensor:
        """The channels [K] to keep, ascending. `statistics`: mean and 1 / sigma of the norm before the error."""
        if self.best is None:
            return torch.arange(error_BCHW.shape[1], device=error_BCHW.device)
        return self.best(norm_per_channel(error_BCHW, statistics_2C))


class PrunedConv(torch.autograd.Function):
    """Convolution whose backward multiplies the kept error maps only. x is in channels-last order, and padded already
    where zeros do not do."""

    @staticmethod
    def forward(ctx, x_BIHW, weight_CIJL, bias_C, layer: PrunedLayer):
        ctx.save_for_backward(x_BIHW, weight_CIJL, bias_C)
        ctx.layer = layer
        how = layer.geometry
        return F.conv2d(x_BIHW, weight_CIJL, bias_C, how.stride, how.padding, how.dilation, how.groups)

    @staticmethod
    @once_differentiable
    def backward(ctx, error_BCHW):
        error_BCHW = error_BCHW.contiguous(memory_format=CHANNELS_LAST)
        channel_K = ctx.layer.select(error_BCHW)
        error_BKHW = gather(error_BCHW, channel_K)
        gradients = conv_gradients(error_BKHW, channel_K, *ctx.saved_tensors, ctx.layer, ctx.needs_input_grad)
        return *gradients, None


class PrunedConvNorm(torch.autograd.Function):
    """Batch norm of y, a PrunedConv's output, whose backward is that of both, on the kept maps."""

    @staticmethod
    def forward(
        ctx, x_BIHW, weight_CIJL, bias_C, gamma_C, beta_C, y_BCHW, layer: PrunedLayer, norm: nn.BatchNorm2d
    ):
        out_BCHW, ctx.norm = norm_forward(y_BCHW, norm)
        ctx.save_for_backward(x_BIHW, weight_CIJL, bias_C, gamma_C, y_BCHW)
        ctx.layer = layer
        return out_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx, error_BCHW):
        *convolution, gamma_C, y_BCHW = ctx.saved_tensors
        error_BCHW = error_BCHW.contiguous(memory_format=CHANNELS_LAST)
        channel_K = ctx.layer.select(error_BCHW, ctx.norm.statistics_2C)
        error_BKHW, *gammas = norm_backward(error_BCHW, y_BCHW, gamma_C, channel_K, ctx.norm)
        gradients = conv_gradients(error_BKHW, channel_K, *convolution, ctx.layer, ctx.needs_input_grad)
        return *gradients, *(gammas if gamma_C is not None else (None, None)), None, None, None


def norm_after(y_BCHW: Tensor, norm: nn.BatchNorm2d) -> Tensor | None:
    """The norm of a PrunedConv's output, pruned together with it; None for any other tensor."""
    node = y_BCHW.grad_fn
    if not isinstance(node, PrunedConv._backward_cls):
        return None
    convolution = node.saved_tensors
    return PrunedConvNorm.apply(*convolution, norm.weight, norm.bias, y_BCHW.detach(), node.layer, norm)


def conv_gradients(
    error_BKHW: Tensor,
    channel_K: Tensor,
    x_BIHW: Tensor,
    weight_CIJL: Tensor,
    bias_C: Tensor | None,
    layer: PrunedLayer,
    wants: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Of x, weight and bias, those of them that `wants` a gradient."""
    error_BKHW = error_BKHW.contiguous(memory_format=CHANNELS_LAST)
    channels, kept = len(weight_CIJL), len(channel_K)
    macs = error_BKHW.numel() * kernel_macs(weight_CIJL)
    ranked = 0 if layer.best is None else error_BKHW.numel() // kept * channels
    layer.record(BackwardCost(macs * wants[0], macs * wants[1], ranked))
    for_x, for_weight = layer.roundings or (_as_it_is, _as_it_is)
    kernel_KIJL = weight_CIJL.index_select(0, channel_K)
    grad_x = grad_weight = grad_bias = None
    if wants[0]:
        grad_x = propagate(for_x(error_BKHW), x_BIHW, kernel_KIJL, channel_K, layer.geometry)
    if wants[1]:
        grad_weight = weight_gradient(
            for_weight(error_BKHW), x_BIHW, kernel_KIJL, channel_K, layer.geometry, channels
        )
    if wants[2]:
        grad_bias = spread(error_BKHW.sum((0, 2, 3)), channel_K, channels)
    return grad_x, grad_weight, grad_bias


def _as_it_is(error: Tensor) -> Tensor:
    return error


def propagate(
    error_BKHW: Tensor, x_BIHW: Tensor, kernel_KIJL: Tensor, channel_K: Tensor, geometry: Geometry
) -> Tensor:
    """The error at the convolution's input, [B, I, H, W], from the kept maps at its output."""
    if not geometry.depthwise:
        return _backward(error_BKHW, x_BIHW, kernel_KIJL, geometry, geometry.groups, "x")
    inputs = _inputs_of(channel_K, kernel_KIJL)
    kept = _backward(error_BKHW, gather(x_BIHW, inputs), kernel_KIJL, geometry, len(channel_K), "x")
    return torch.zeros_like(x_BIHW).index_copy_(1, inputs, kept)


def weight_gradient(
    error_BKHW: Tensor,
    x_BIHW: Tensor,
    kernel_KIJL: Tensor,
    channel_K: Tensor,
    geometry: Geometry,
    channels: int,
) -> Tensor:
    """[C, I, J, L], zero where dropped."""
    if geometry.skips_pixels:
        # Only what it reads: oneDNN's own kernel for this writes out of bounds with two threads (torch 2.13).
        rows, columns = geometry.stride
        x_BIHW = x_BIHW[:, :, ::rows, ::columns].contiguous(memory_format=CHANNELS_LAST)
        geometry = replace(geometry, stride=(1, 1))
    groups = geometry.groups
    if geometry.depthwise:
        x_BIHW, groups = gather(x_BIHW, _inputs_of(channel_K, kernel_KIJL)), len(channel_K)
    exchanged = len(channel_K) < VECTOR_WIDTH <= x_BIHW.shape[1] and geometry.exchangeable
    if exchanged:
        gradient_KIJL = _mirrored_weight_gradient(error_BKHW, x_BIHW, kernel_KIJL, geometry)
    else:
        gradient_KIJL = _backward(error_BKHW, x_BIHW, kernel_KIJL, geometry, groups, "weight")
    return spread_kernels(gradient_KIJL, channel_K, channels, mirrored=exchanged)


def _mirrored_weight_gradient(
    error_BKHW: Tensor, x_BIHW: Tensor, kernel_KIJL: Tensor, geometry: Geometry
) -> Tensor:
    """The same sums with x in the error's place: few channels become inputs, which need no vector of their own.

    With 2 p = d (J - 1), mirrored rows j' = J - 1 - j:

    grad W[k, i, j] = sum_h x[i, h + j d - p] error[k, h]  =  sum_u error[k, u + j' d - p] x[i, u]
    """
    kernel_IKJL = torch.empty_like(kernel_KIJL.transpose(0, 1))  # only its shape matters
    return _backward(x_BIHW, error_BKHW, kernel_IKJL, geometry, 1, "weight").transpose(0, 1)


def _backward(
    error: Tensor, x: Tensor, kernel: Tensor, geometry: Geometry, groups: int, of: Literal["x", "weight"]
) -> Tensor:
    mask = [of == "x", of == "weight", False]
    gradients = torch.ops.aten.convolution_backward.default(
        error,
        x,
        kernel,
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        False,
        [0, 0],
        groups,
        mask,
    )
    return gradients[mask.index(True)]


def _inputs_of(channel_K: Tensor, kernel_KIJL: Tensor) -> Tensor:
    """Input channels of depthwise output channels."""
    width = kernel_KIJL.shape[1]
    return (channel_K[:, None] * width + torch.arange(width, device=channel_K.device)).flatten()


class RoundedLinear(torch.autograd.Function):
    """Linear layer whose backward rounds the error as quantised training does. x: [..., inputs]."""

    @staticmethod
    def forward(ctx, x, weight_CI, bias_C, roundings: tuple[Rounding, Rounding]):
        ctx.save_for_backward(x, weight_CI)
        ctx.roundings, ctx.has_bias = roundings, bias_C is not None
        return F.linear(x, weight_CI, bias_C)

    @staticmethod
    @once_differentiable
    def backward(ctx, error):
        x, weight_CI = ctx.saved_tensors
        for_x, for_weight = ctx.roundings
        grad_x = for_x(error) @ weight_CI if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = for_weight(error).flatten(0, -2).T @ x.flatten(0, -2)
        grad_bias = error.flatten(0, -2).sum(0) if ctx.has_bias else None
        return grad_x, grad_weight, grad_bias, None
