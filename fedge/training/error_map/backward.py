"""Backward passes of convolution, and of its block with batch norm and ReLU, through the kept error maps alone.

Channels are ranked by the error map delta_BCHW that comes into a block conv -> norm -> ReLU, masked by the ReLU; batch
norm works channel by channel (batch_norm.py), so that norm and convolution see the K kept maps delta_BKHW only. A
dropped channel gives nothing to the norm's shift and scale, to the kernel, or to the error that goes on
(convolution.py).

A block is one autograd node, since autograd hands on gradients of full shape only.
Shapes: B instances, C channels out (K kept), I channels in, H x W pixels, J, L a kernel's rows and columns.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fedge.training.error_map.batch_norm import NormState, block_norms, norm_backward, norm_forward
from fedge.training.error_map.channels import CHANNELS_LAST, gather, norm_per_channel, spread
from fedge.training.error_map.convolution import convolve, propagate, weight_gradient
from fedge.training.error_map.geometry import Geometry
from fedge.training.macs import BackwardCost, kernel_macs
from fedge.training.torch_private import is_node_of

Rounding = Callable[[Tensor], Tensor]
"""What quantised training does to an error before a product."""


class PrunedLayer(NamedTuple):
    """A convolution as its backward needs it, its tensors aside.

    best: kept channels [K] of norms [C]; None keeps all. record: is told what the backward cost.
    roundings: of the error for x, of the error for W, in quantised training.
    """

    geometry: Geometry
    best: Callable[[Tensor], Tensor] | None
    record: Callable[[BackwardCost], None]
    roundings: tuple[Rounding, Rounding] | None = None

    def select(self, error_BCHW: Tensor, norms: Callable[[Tensor], Tensor]) -> Tensor:
        """The channels [K] to keep, ascending, by the norms of their error maps."""
        if self.best is None:
            return torch.arange(error_BCHW.shape[1], device=error_BCHW.device)
        return self.best(norms(error_BCHW))


class _Context(Protocol):
    """What torch hands to a Function's two passes; each Function adds what it saves."""

    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...


class _ConvContext(_Context, Protocol):
    saved_tensors: tuple[Tensor, Tensor, Tensor | None]
    layer: PrunedLayer


class _BlockContext(_Context, Protocol):
    saved_tensors: tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor]
    layer: PrunedLayer
    norm: NormState


class _LinearContext(_Context, Protocol):
    saved_tensors: tuple[Tensor, Tensor]
    roundings: tuple[Rounding, Rounding]
    has_bias: bool


def apply(function: type[torch.autograd.Function], *inputs: object) -> Tensor:
    """Run it as a node of the graph."""
    output: Tensor = function.apply(*inputs)
    return output


class PrunedConv(torch.autograd.Function):
    """Convolution whose backward multiplies the kept error maps only. x is in channels-last order, and padded already
    where zeros do not do."""

    @staticmethod
    def forward(
        ctx: _ConvContext, x_BIHW: Tensor, weight_CIJL: Tensor, bias_C: Tensor | None, layer: PrunedLayer
    ) -> Tensor:
        ctx.save_for_backward(x_BIHW, weight_CIJL, bias_C)
        ctx.layer = layer
        return convolve(x_BIHW, weight_CIJL, bias_C, layer.geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: _ConvContext, error_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        error_BCHW = error_BCHW.contiguous(memory_format=CHANNELS_LAST)
        channel_K = ctx.layer.select(error_BCHW, norm_per_channel)
        error_BKHW = gather(error_BCHW, channel_K)
        return *_kept_gradients(
            error_BKHW, channel_K, ctx.saved_tensors, ctx.layer, ctx.needs_input_grad
        ), None


class PrunedBlock(torch.autograd.Function):
    """Convolution and batch norm; y is the convolution's output if there is one already."""

    @staticmethod
    def forward(
        ctx: _BlockContext,
        x_BIHW: Tensor,
        weight_CIJL: Tensor,
        bias_C: Tensor | None,
        gamma_C: Tensor | None,
        beta_C: Tensor | None,
        y_BCHW: Tensor | None,
        layer: PrunedLayer,
        norm: nn.BatchNorm2d,
    ) -> Tensor:
        if y_BCHW is None:
            y_BCHW = convolve(x_BIHW, weight_CIJL, bias_C, layer.geometry)
            y_BCHW = y_BCHW.contiguous(memory_format=CHANNELS_LAST)
        out_BCHW, ctx.norm = norm_forward(y_BCHW, norm)
        ctx.save_for_backward(x_BIHW, weight_CIJL, bias_C, gamma_C, y_BCHW)
        ctx.layer = layer
        return out_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: _BlockContext, error_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_BIHW, weight_CIJL, bias_C, gamma_C, y_BCHW = ctx.saved_tensors
        error_BCHW = error_BCHW.contiguous(memory_format=CHANNELS_LAST)
        channel_K = ctx.layer.select(error_BCHW, partial(block_norms, norm=ctx.norm))
        error_BKHW, *gammas = norm_backward(error_BCHW, y_BCHW, gamma_C, channel_K, ctx.norm)
        convolution = x_BIHW, weight_CIJL, bias_C
        gradients = _kept_gradients(error_BKHW, channel_K, convolution, ctx.layer, ctx.needs_input_grad)
        return *gradients, *(gammas if gamma_C is not None else (None, None)), *(None,) * 3


def norm_after(y_BCHW: Tensor, norm: nn.BatchNorm2d) -> Tensor | None:
    """The norm of a PrunedConv's output, pruned together with it; None for any other tensor. The node of the
    convolution alone is left for other readers of its output, if there are any."""
    node = y_BCHW.grad_fn
    if not is_node_of(node, PrunedConv):
        return None
    context = cast(_ConvContext, node)  # a node is the context of its function
    x_BIHW, weight_CIJL, bias_C = context.saved_tensors
    own = norm.weight, norm.bias, y_BCHW.detach()
    return apply(PrunedBlock, x_BIHW, weight_CIJL, bias_C, *own, context.layer, norm)


Convolution = tuple[Tensor, Tensor, Tensor | None]
"""x [B, I, H, W], weight [C, I, J, L], bias [C]."""


def _kept_gradients(
    error_BKHW: Tensor,
    channel_K: Tensor,
    convolution: Convolution,
    layer: PrunedLayer,
    wants: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Of x, weight and bias, from the kept maps; counted."""
    weight_CIJL = convolution[1]
    macs = error_BKHW.numel() * kernel_macs(weight_CIJL)
    ranked = 0 if layer.best is None else error_BKHW.numel() // len(channel_K) * len(weight_CIJL)
    layer.record(BackwardCost(macs * wants[0], macs * wants[1], ranked))
    return conv_gradients(error_BKHW, channel_K, convolution, layer.geometry, layer.roundings, wants)


def conv_gradients(
    error_BKHW: Tensor,
    channel_K: Tensor,
    convolution: Convolution,
    geometry: Geometry,
    roundings: tuple[Rounding, Rounding] | None,
    wants: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Of x, weight and bias, those of them that `wants` a gradient."""
    x_BIHW, weight_CIJL, _ = convolution
    error_BKHW = error_BKHW.contiguous(memory_format=CHANNELS_LAST)
    for_x, for_weight = roundings or (_as_it_is, _as_it_is)
    grad_x = grad_weight = grad_bias = None
    if wants[0]:
        grad_x = propagate(for_x(error_BKHW), x_BIHW, weight_CIJL, channel_K, geometry)
    if wants[1]:
        grad_weight = weight_gradient(for_weight(error_BKHW), x_BIHW, weight_CIJL, channel_K, geometry)
    if wants[2]:
        grad_bias = spread(error_BKHW.sum((0, 2, 3)), channel_K, len(weight_CIJL))
    return grad_x, grad_weight, grad_bias


def _as_it_is(error: Tensor) -> Tensor:
    return error


class RoundedLinear(torch.autograd.Function):
    """Linear layer whose backward rounds the error as quantised training does. x: [..., inputs]."""

    @staticmethod
    def forward(
        ctx: _LinearContext,
        x: Tensor,
        weight_CI: Tensor,
        bias_C: Tensor | None,
        roundings: tuple[Rounding, Rounding],
    ) -> Tensor:
        ctx.save_for_backward(x, weight_CI)
        ctx.roundings, ctx.has_bias = roundings, bias_C is not None
        return F.linear(x, weight_CI, bias_C)

    @staticmethod
    @once_differentiable
    def backward(ctx: _LinearContext, error: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_CI = ctx.saved_tensors
        for_x, for_weight = ctx.roundings
        grad_x = for_x(error) @ weight_CI if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = for_weight(error).flatten(0, -2).T @ x.flatten(0, -2)
        grad_bias = error.flatten(0, -2).sum(0) if ctx.has_bias else None
        return grad_x, grad_weight, grad_bias, None
