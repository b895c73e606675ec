"""Backward passes of convolution, and of convolution with batch norm, through the kept error maps alone.

The blocks conv -> norm -> ReLU of a network have an error map delta_BCHW behind their norm (behind their convolution,
where there is no norm); PyTorch's own ReLU has masked it already. There the channels are ranked and the K kept ones
gathered; batch norm acts channel by channel, so that norm and convolution work on delta_BKHW only. A dropped channel
gives nothing to the norm's shift and scale, to the kernel, or to the error that goes on:

    grad beta_k, gamma_k = sums of  delta_k,  delta_k y^_k             y^ = (y - mean) / sigma, the norm's input
    delta_k   <-  gamma_k / sigma_k (delta_k - grad beta_k / n - y^_k grad gamma_k / n)     n values per channel
    grad W_k   = sum over instances of  x * delta_k                    k kept, else 0      (EIF + EMP, equation 12)
    grad x     = sum over kept k of     rot(W_k) * delta_k                                 (equation 8)

(The second line is Ioffe and Szegedy's, ICML 2015; with running statistics it is gamma_k / sigma_k delta_k.) The norm's
forward pass makes one autograd node of both layers, since autograd hands on gradients of full shape only. The node of
the convolution alone is left for other readers of its output, if there are any.
Shapes: B instances, C channels out (K kept), I channels in, H x W pixels, J, L a kernel's rows and columns.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fedge.training.kept_maps import Kept, MapSelector, gather, spread
from fedge.training.macs import BackwardCost, kernel_macs

CHANNELS_LAST = torch.channels_last
# PyTorch's kernels in channels-last order work on vectors of channels; fewer than one vector are slow.
VECTOR_WIDTH = 16

Rounding = Callable[[Tensor], Tensor]
"""What quantised training does to an error before a product."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """What a convolution does besides its kernel. With `roundings` (of the error for x, of the error for W) the
    backward is that of quantised training."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    depthwise: bool
    """Every output channel has input channels of its own: to drop its map is to drop the group."""
    roundings: tuple[Rounding, Rounding] | None = None

    def skips_pixels(self, kernel_KIJL: Tensor) -> bool:
        """Whether the kernel is one point and reads every so manieth pixel, as on a shortcut."""
        return tuple(kernel_KIJL.shape[2:]) == (1, 1) and self.padding == (0, 0) and self.stride != (1, 1)

    def exchangeable(self, kernel_KIJL: Tensor) -> bool:
        """Whether error and input may change places in the weight gradient at no cost: both have the same size."""
        reach = tuple(d * (k - 1) for d, k in zip(self.dilation, kernel_KIJL.shape[2:], strict=True))
        return self.stride == (1, 1) and self.groups == 1 and reach == tuple(2 * p for p in self.padding)


@dataclass(frozen=True, eq=False)
class PrunedLayer:
    """A convolution as its backward needs it, its tensors aside."""

    geometry: Geometry
    select: MapSelector


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
        kept = ctx.layer.select(error_BCHW)
        return *conv_gradients(kept, *ctx.saved_tensors, ctx.layer, ctx.needs_input_grad), None


class PrunedConvNorm(torch.autograd.Function):
    """Batch norm of y, a PrunedConv's output, whose backward is that of both, on the kept maps."""

    @staticmethod
    def forward(
        ctx, x_BIHW, weight_CIJL, bias_C, gamma_C, beta_C, y_BCHW, layer: PrunedLayer, norm: nn.BatchNorm2d
    ):
        uses_batch = norm.training or norm.running_mean is None
        mean_C, variance_C = norm.running_mean, norm.running_var
        out_BCHW, batch_mean_C, batch_scale_C = torch.ops.aten.native_batch_norm(
            y_BCHW, gamma_C, beta_C, mean_C, variance_C, uses_batch, next_momentum(norm), norm.eps
        )
        if not uses_batch:
            batch_mean_C, batch_scale_C = mean_C.clone(), (variance_C + norm.eps).rsqrt()
        ctx.save_for_backward(x_BIHW, weight_CIJL, bias_C, gamma_C, y_BCHW, batch_mean_C, batch_scale_C)
        ctx.layer, ctx.uses_batch, ctx.epsilon = layer, uses_batch, norm.eps
        return out_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx, error_BCHW):
        *convolution, gamma_C, y_BCHW, mean_C, scale_C = ctx.saved_tensors
        kept = ctx.layer.select(error_BCHW, scale_C)
        channel_K = kept.channel_K
        mean_K, scale_K = mean_C[channel_K], scale_C[channel_K]
        error_BKHW, grad_gamma_K, grad_beta_K = torch.ops.aten.native_batch_norm_backward(
            _in_fast_order(kept.error_BKHW),
            _in_fast_order(gather(y_BCHW, channel_K)),
            None if gamma_C is None else gamma_C[channel_K],
            None if ctx.uses_batch else mean_K,
            None if ctx.uses_batch else scale_K.square().reciprocal() - ctx.epsilon,
            mean_K,
            scale_K,
            ctx.uses_batch,
            ctx.epsilon,
            [True, gamma_C is not None, gamma_C is not None],
        )
        gradients = conv_gradients(Kept(channel_K, error_BKHW), *convolution, ctx.layer, ctx.needs_input_grad)
        gammas = None, None
        if gamma_C is not None:
            gammas = tuple(spread(grad_K, channel_K, len(gamma_C)) for grad_K in (grad_gamma_K, grad_beta_K))
        return *gradients, *gammas, None, None, None


def norm_after(y_BCHW: Tensor, norm: nn.BatchNorm2d) -> Tensor | None:
    """The norm of a PrunedConv's output, pruned together with it; None for any other tensor."""
    node = y_BCHW.grad_fn
    if not isinstance(node, PrunedConv._backward_cls):
        return None
    convolution = node.saved_tensors
    return PrunedConvNorm.apply(*convolution, norm.weight, norm.bias, y_BCHW.detach(), node.layer, norm)


def conv_gradients(
    kept: Kept,
    x_BIHW: Tensor,
    weight_CIJL: Tensor,
    bias_C: Tensor | None,
    layer: PrunedLayer,
    wants: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Of x, weight and bias, those of them that `wants` a gradient."""
    channel_K, error_BKHW = kept.channel_K, kept.error_BKHW.contiguous(memory_format=CHANNELS_LAST)
    macs = error_BKHW.numel() * kernel_macs(weight_CIJL)
    layer.select.record(BackwardCost(macs * wants[0], macs * wants[1]))
    x_error, weight_error = _rounded(error_BKHW, layer.geometry)
    kernel_KIJL = weight_CIJL.index_select(0, channel_K)
    grad_x = grad_weight = grad_bias = None
    if wants[0]:
        grad_x = propagate(x_error, x_BIHW, kernel_KIJL, channel_K, layer.geometry)
    if wants[1]:
        gradient_KIJL = weight_gradient(weight_error, x_BIHW, kernel_KIJL, channel_K, layer.geometry)
        grad_weight = spread(gradient_KIJL, channel_K, len(weight_CIJL))
    if wants[2]:
        grad_bias = spread(error_BKHW.sum((0, 2, 3)), channel_K, len(weight_CIJL))
    return grad_x, grad_weight, grad_bias


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
    error_BKHW: Tensor, x_BIHW: Tensor, kernel_KIJL: Tensor, channel_K: Tensor, geometry: Geometry
) -> Tensor:
    """[K, I, J, L]: of the kept kernels."""
    if geometry.skips_pixels(kernel_KIJL):
        # Only what it reads: oneDNN's own kernel for this writes out of bounds with two threads (torch 2.13).
        rows, columns = geometry.stride
        x_BIHW = x_BIHW[:, :, ::rows, ::columns].contiguous(memory_format=CHANNELS_LAST)
        geometry = replace(geometry, stride=(1, 1))
    groups = geometry.groups
    if geometry.depthwise:
        x_BIHW, groups = gather(x_BIHW, _inputs_of(channel_K, kernel_KIJL)), len(channel_K)
    if len(channel_K) < VECTOR_WIDTH <= x_BIHW.shape[1] and geometry.exchangeable(kernel_KIJL):
        return _exchanged_weight_gradient(error_BKHW, x_BIHW, kernel_KIJL, geometry)
    return _backward(error_BKHW, x_BIHW, kernel_KIJL, geometry, groups, "weight")


def _exchanged_weight_gradient(
    error_BKHW: Tensor, x_BIHW: Tensor, kernel_KIJL: Tensor, geometry: Geometry
) -> Tensor:
    """The same sums with x in the error's place: few channels become inputs, which need no vector of their own.

    With 2 p = d (J - 1), mirrored rows j' = J - 1 - j:

    grad W[k, i, j] = sum_h x[i, h + j d - p] error[k, h]  =  sum_u error[k, u + j' d - p] x[i, u]
    """
    kernel_IKJL = kernel_KIJL.transpose(0, 1).contiguous(memory_format=CHANNELS_LAST)
    gradient_IKJL = _backward(x_BIHW, error_BKHW, kernel_IKJL, geometry, 1, "weight")
    return gradient_IKJL.transpose(0, 1).flip(2, 3)


def _backward(
    error: Tensor, x: Tensor, kernel: Tensor, geometry: Geometry, groups: int, of: Literal["x", "weight"]
) -> Tensor:
    mask = [of == "x", of == "weight", False]
    gradients = torch.ops.aten.convolution_backward(
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


def _rounded(error: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    if geometry.roundings is None:
        return error, error
    for_x, for_weight = geometry.roundings
    return for_x(error), for_weight(error)


def _in_fast_order(maps_BKHW: Tensor) -> Tensor:
    """For PyTorch's batch norm, which in channels-last order takes one pixel at a time."""
    fast = CHANNELS_LAST if maps_BKHW.shape[1] >= VECTOR_WIDTH else torch.contiguous_format
    return maps_BKHW.contiguous(memory_format=fast)


def next_momentum(norm: nn.BatchNorm2d) -> float:
    """Of the running statistics; also counts the batch, as the layer's own forward does."""
    if not norm.training or norm.running_mean is None:
        return 0.0
    norm.num_batches_tracked.add_(1)
    return 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum


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
