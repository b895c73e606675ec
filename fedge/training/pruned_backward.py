"""Backward passes of convolution, batch norm and ReLU through the kept error maps alone.

The blocks conv -> norm -> ReLU of a network end in an error map delta_BCHW, the gradient at the block's output. The
last layer of a block ranks its channels and gathers the K kept ones; the layers before it work on delta_BKHW only,
since ReLU and batch norm act channel by channel. A dropped channel gives nothing to the norm's shift and scale, to the
kernel, or to the error that goes on:

    grad W_k   = sum over instances of  x * delta_k                       k kept, else 0     (EIF + EMP, equation 12)
    grad x     = sum over kept k of     rot(W_k) * delta_k                                   (equation 8)

How delta_BKHW gets from one layer to the one before: autograd hands on gradients of full shape only, so a layer gives
autograd a zero (of full shape, of no size in memory) and leaves the kept maps in the `Link` between the two. Should the
tensor between them be used elsewhere too, autograd adds that gradient to the zero; the layer before sees that and takes
the sum.

Tensors are put into channels-last order, in which the products over few channels run at full speed on a CPU.
Shapes: B instances, C channels out (K kept), I channels in, H x W pixels, J, L a kernel's rows and columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fedge.training.macs import BackwardCost, kernel_macs

CHANNELS_LAST = torch.channels_last
# oneDNN's weight gradient pads the output channels to its vector width; below it the roles are exchanged.
VECTOR_WIDTH = 16
CACHED_ELEMENTS = 1 << 17

Ranking = Callable[[Tensor], Tensor]
"""Kept channels [K] of an error norm [C]."""
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
    roundings: tuple[Rounding, Rounding] | None = None

    def depthwise(self, weight_CIJL: Tensor) -> bool:
        """Every output channel has input channels of its own: to drop its map is to drop the group."""
        return self.groups > 1 and self.groups == len(weight_CIJL)

    def exchangeable(self, weight_CIJL: Tensor) -> bool:
        """Whether error and input may change places in the weight gradient at no cost: both have the same size."""
        reach = tuple(d * (k - 1) for d, k in zip(self.dilation, weight_CIJL.shape[2:], strict=True))
        return self.stride == (1, 1) and self.groups == 1 and reach == tuple(2 * p for p in self.padding)


@dataclass(frozen=True, eq=False)
class Kept:
    """The kept maps of an error: their channels [K] and the maps [B, K, H, W]."""

    channel_K: Tensor
    error_BKHW: Tensor


class Link:
    """Between a layer and the next one of its block: how to rank (None: keep all), and the kept maps on their way."""

    def __init__(
        self, ranking: Ranking | None, record: Callable[[BackwardCost], None], rank_every: int = 1
    ) -> None:
        self.ranking = ranking
        self.rank_every = rank_every
        self.record = record
        self.scale_C: Tensor | None = None
        """What the norm's backward multiplies each map by: |gamma| / sigma."""
        self._posted: Kept | None = None
        self._zero: Tensor | None = None

    def post(self, kept: Kept, shape: torch.Size) -> Tensor:
        """Leave the kept maps here; returned is the zero to give to autograd."""
        self._posted = kept
        self._zero = kept.error_BKHW.new_zeros(()).expand(shape)
        return self._zero

    def collect(self, error_BCHW: Tensor) -> Kept:
        """The kept maps: those left here, or the best of the dense error where this layer ends the block."""
        posted, zero = self._posted, self._zero
        self._posted = self._zero = None
        if posted is None:
            return self.choose(error_BCHW)
        if error_BCHW.data_ptr() == zero.data_ptr():
            return posted
        # The tensor between the two layers has another reader: both gradients count.
        return self.choose(error_BCHW.index_add(1, posted.channel_K, posted.error_BKHW))

    def choose(self, error_BCHW: Tensor, active_BCHW: Tensor | None = None) -> Kept:
        """Rank the maps and gather the best; `active` is a ReLU's output, which blocks the error where it is 0."""
        if self.ranking is None:
            return Kept(
                torch.arange(error_BCHW.shape[1], device=error_BCHW.device), _mask(error_BCHW, active_BCHW)
            )
        ranked = slice(None, None, self.rank_every)
        norm_C = _norm_per_channel(error_BCHW[ranked], None if active_BCHW is None else active_BCHW[ranked])
        self.record(BackwardCost(selection_adds=error_BCHW[ranked].numel()))
        channel_K = self.ranking(norm_C if self.scale_C is None else norm_C * self.scale_C)
        active_BKHW = None if active_BCHW is None else gather(active_BCHW, channel_K)
        return Kept(channel_K, _mask(gather(error_BCHW, channel_K), active_BKHW))


def _norm_per_channel(error_BCHW: Tensor, active_BCHW: Tensor | None) -> Tensor:
    """||delta_j||_1 behind the ReLU, a few instances at a time, so that what is written in between stays in the cache.

    (torch's vector_norm over these axes is four times slower than this.)
    """
    norm_C = error_BCHW.new_zeros(error_BCHW.shape[1])
    step = max(1, CACHED_ELEMENTS // error_BCHW[0].numel())
    for start in range(0, len(error_BCHW), step):
        part = slice(start, start + step)
        masked = _mask(error_BCHW[part], None if active_BCHW is None else active_BCHW[part])
        norm_C += masked.abs().sum((0, 2, 3))
    return norm_C


def _mask(error: Tensor, active: Tensor | None) -> Tensor:
    """ReLU's backward."""
    return error if active is None else torch.ops.aten.threshold_backward(error, active, 0)


class PrunedConv(torch.autograd.Function):
    """Convolution whose backward multiplies the kept error maps only; x is padded already where zeros do not do."""

    @staticmethod
    def forward(ctx, x_BIHW, weight_CIJL, bias_C, geometry: Geometry, link: Link):
        x_BIHW = x_BIHW.contiguous(memory_format=CHANNELS_LAST)
        ctx.save_for_backward(x_BIHW, weight_CIJL)
        ctx.geometry, ctx.link, ctx.has_bias = geometry, link, bias_C is not None
        return F.conv2d(
            x_BIHW, weight_CIJL, bias_C, geometry.stride, geometry.padding, geometry.dilation, geometry.groups
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, error_BCHW):
        x_BIHW, weight_CIJL = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        kept = ctx.link.collect(error_BCHW)
        channel_K = kept.channel_K
        error_BKHW = kept.error_BKHW.contiguous(memory_format=CHANNELS_LAST)
        macs = error_BKHW.numel() * kernel_macs(weight_CIJL)
        ctx.link.record(BackwardCost(macs * wants_x, macs * wants_weight))
        x_error, weight_error = _rounded(error_BKHW, ctx.geometry)
        grad_x = grad_weight = grad_bias = None
        if wants_x:
            grad_x = propagate(x_error, x_BIHW, weight_CIJL, channel_K, ctx.geometry)
        if wants_weight:
            grad_weight = weight_gradient(weight_error, x_BIHW, weight_CIJL, channel_K, ctx.geometry)
        if ctx.has_bias and wants_bias:
            grad_bias = spread(error_BKHW.sum((0, 2, 3)), channel_K, len(weight_CIJL))
        return grad_x, grad_weight, grad_bias, None, None


class PrunedNorm(torch.autograd.Function):
    """Batch norm whose backward runs on the kept maps; the dropped ones give its scale and shift nothing."""

    @staticmethod
    def forward(ctx, y_BCHW, gamma_C, beta_C, layer: nn.BatchNorm2d, before: Link, after: Link):
        uses_batch = layer.training or layer.running_mean is None
        mean_C, variance_C = layer.running_mean, layer.running_var
        out_BCHW, batch_mean_C, batch_scale_C = torch.ops.aten.native_batch_norm(
            y_BCHW, gamma_C, beta_C, mean_C, variance_C, uses_batch, next_momentum(layer), layer.eps
        )
        if not uses_batch:
            batch_mean_C, batch_scale_C = mean_C, (variance_C + layer.eps).rsqrt()
        ctx.save_for_backward(y_BCHW, gamma_C, batch_mean_C, batch_scale_C)
        ctx.uses_batch, ctx.epsilon, ctx.before, ctx.after = uses_batch, layer.eps, before, after
        after.scale_C = batch_scale_C if gamma_C is None else batch_scale_C * gamma_C.detach().abs()
        return out_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx, error_BCHW):
        y_BCHW, gamma_C, mean_C, scale_C = ctx.saved_tensors
        kept = ctx.after.collect(error_BCHW)
        channel_K = kept.channel_K
        mean_K, scale_K = mean_C[channel_K], scale_C[channel_K]
        error_BKHW, grad_gamma_K, grad_beta_K = torch.ops.aten.native_batch_norm_backward(
            kept.error_BKHW,
            gather(y_BCHW, channel_K),
            None if gamma_C is None else gamma_C[channel_K],
            None if ctx.uses_batch else mean_K,
            None if ctx.uses_batch else scale_K.square().reciprocal() - ctx.epsilon,
            mean_K,
            scale_K,
            ctx.uses_batch,
            ctx.epsilon,
            [True, gamma_C is not None, gamma_C is not None],
        )
        zero = ctx.before.post(Kept(channel_K, error_BKHW), y_BCHW.shape)
        if gamma_C is None:
            return zero, None, None, None, None, None
        channels = len(gamma_C)
        gammas = spread(grad_gamma_K, channel_K, channels), spread(grad_beta_K, channel_K, channels)
        return zero, *gammas, None, None, None


class PrunedReLU(torch.autograd.Function):
    """ReLU at the end of a block: ranks the error maps behind it and masks the kept ones."""

    @staticmethod
    def forward(ctx, z_BCHW, before: Link):
        out_BCHW = z_BCHW.relu()
        ctx.save_for_backward(out_BCHW)
        ctx.before = before
        return out_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx, error_BCHW):
        (out_BCHW,) = ctx.saved_tensors
        return ctx.before.post(ctx.before.choose(error_BCHW, out_BCHW), out_BCHW.shape), None


def propagate(
    error_BKHW: Tensor, x_BIHW: Tensor, weight_CIJL: Tensor, channel_K: Tensor, geometry: Geometry
) -> Tensor:
    """The error at the convolution's input, [B, I, H, W], from the kept maps at its output."""
    if not geometry.depthwise(weight_CIJL):
        return _backward(error_BKHW, x_BIHW, weight_CIJL[channel_K], geometry, geometry.groups, "x")
    inputs = _inputs_of(channel_K, weight_CIJL)
    kept = _backward(
        error_BKHW, gather(x_BIHW, inputs), weight_CIJL[channel_K], geometry, len(channel_K), "x"
    )
    return torch.zeros_like(x_BIHW).index_copy_(1, inputs, kept)


def weight_gradient(
    error_BKHW: Tensor, x_BIHW: Tensor, weight_CIJL: Tensor, channel_K: Tensor, geometry: Geometry
) -> Tensor:
    """[C, I, J, L], zero for the kernels whose maps were dropped."""
    groups, kernel_KIJL = geometry.groups, weight_CIJL[channel_K]
    if geometry.depthwise(weight_CIJL):
        x_BIHW, groups = gather(x_BIHW, _inputs_of(channel_K, weight_CIJL)), len(channel_K)
    if len(channel_K) < VECTOR_WIDTH <= x_BIHW.shape[1] and geometry.exchangeable(weight_CIJL):
        gradient = _exchanged_weight_gradient(error_BKHW, x_BIHW, kernel_KIJL, geometry)
    else:
        gradient = _backward(error_BKHW, x_BIHW, kernel_KIJL, geometry, groups, "weight")
    return torch.zeros_like(weight_CIJL).index_copy_(0, channel_K, gradient)


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


def gather(maps_BCHW: Tensor, channel_K: Tensor) -> Tensor:
    """[B, K, H, W] of them, channels last; all of them are not copied."""
    if len(channel_K) == maps_BCHW.shape[1]:
        return maps_BCHW
    maps_BHWC = maps_BCHW.permute(0, 2, 3, 1)
    if not maps_BHWC.is_contiguous():
        return maps_BCHW[:, channel_K]
    pixels_NK = maps_BHWC.view(-1, maps_BHWC.shape[3]).index_select(1, channel_K)
    return pixels_NK.view(*maps_BHWC.shape[:3], -1).permute(0, 3, 1, 2)


def spread(rows_K: Tensor, channel_K: Tensor, channels: int) -> Tensor:
    """Rows back at their channels, zero elsewhere: [channels, ...]."""
    return rows_K.new_zeros(channels, *rows_K.shape[1:]).index_copy_(0, channel_K, rows_K)


def _inputs_of(channel_K: Tensor, weight_CIJL: Tensor) -> Tensor:
    """Input channels of depthwise output channels."""
    width = weight_CIJL.shape[1]
    return (channel_K[:, None] * width + torch.arange(width, device=channel_K.device)).flatten()


def _rounded(error: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    if geometry.roundings is None:
        return error, error
    for_x, for_weight = geometry.roundings
    return for_x(error), for_weight(error)


def next_momentum(layer: nn.BatchNorm2d) -> float:
    """Of the running statistics; also counts the batch, as the layer's own forward does."""
    if not layer.training or layer.running_mean is None:
        return 0.0
    layer.num_batches_tracked.add_(1)
    return 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum


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
