"""channelwise.c on tensors: what error-map pruning does channel by channel, products aside.

Shapes: B instances, C channels (K kept), H x W pixels, channels last; float32 or float64.
"""

import torch
from torch import Tensor, nn

from fedge.training import native

MOST_CHANNELS = 1 << 11  # what is summed up lies on the threads' stacks


def takes(maps_BCHW: Tensor) -> bool:
    """Whether the functions below work on such maps here."""
    return (
        native.at_hand(maps_BCHW)
        and maps_BCHW.is_contiguous(memory_format=torch.channels_last)
        and maps_BCHW.numel() > 0
        and maps_BCHW.shape[1] <= MOST_CHANNELS
    )


def takes_norm(y_BCHW: Tensor, norm: nn.BatchNorm2d) -> bool:
    """Whether `norm_forward` works on this layer's parameters and running statistics too."""
    numbers = norm.weight, norm.bias, norm.running_mean, norm.running_var
    return takes(y_BCHW) and all(
        n is None or (n.dtype == y_BCHW.dtype and n.is_contiguous()) for n in numbers
    )


def absolute_sums(error_BCHW: Tensor) -> Tensor:
    """[C]: the sum of |e| over pixels."""
    sum_C = error_BCHW.new_empty(error_BCHW.shape[1])
    native.call("absolute_sums", error_BCHW, *_size(error_BCHW), sum_C)
    return sum_C


def block_sums(error_BCHW: Tensor, y_BCHW: Tensor, statistics_SC: Tensor, rectified: bool) -> Tensor:
    """[3, C]: sums over pixels of |e| / sigma, e and e y^, for an error behind a norm of y, or behind its ReLU."""
    sum_3C = error_BCHW.new_empty(3, error_BCHW.shape[1])
    native.call("block_sums", error_BCHW, y_BCHW, *_size(error_BCHW), statistics_SC, int(rectified), sum_3C)
    return sum_3C


def best_channels(score_C: Tensor, kept: int, groups: int) -> Tensor:
    """[K], ascending: those of highest score, as many in every group."""
    channel_K = torch.empty(kept, dtype=torch.int64)
    native.call("best_channels", score_C, groups, len(score_C) // groups, kept // groups, channel_K)
    return channel_K


def norm_forward(y_BCHW: Tensor, norm: nn.BatchNorm2d, rectified: bool) -> tuple[Tensor, Tensor]:
    """Batch norm by the pixels' own statistics, with the ReLU behind it if rectified; and these, [4, C]: mean,
    1 / sigma, and the factor and shift that make the norm's output of y. Running ones follow."""
    out_BCHW = torch.empty_like(y_BCHW)
    statistics_4C = y_BCHW.new_empty(4, y_BCHW.shape[1])
    running = norm.running_mean, norm.running_var, norm.num_batches_tracked
    momentum = -1.0 if norm.momentum is None else float(norm.momentum)
    parameters = norm.weight, norm.bias, float(norm.eps)
    native.call(
        "norm_forward",
        y_BCHW,
        *_size(y_BCHW),
        *parameters,
        *running,
        momentum,
        int(rectified),
        statistics_4C,
        out_BCHW,
    )
    return out_BCHW, statistics_4C


def norm_backward(
    error_BCHW: Tensor,
    y_BCHW: Tensor,
    channel_K: Tensor,
    gamma_C: Tensor | None,
    statistics_SC: Tensor,
    sum_3C: Tensor,
    uses_batch: bool,
    rectified: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The kept error before the norm [B, K, H, W], and the gradients of gamma and beta [C], zero where dropped.

    sum_3C: what `block_sums` has made of the error, y and statistics."""
    (pixels, channels), kept = _size(y_BCHW), len(channel_K)
    (instances, _, *image), form = y_BCHW.shape, torch.channels_last
    error_BKHW = torch.empty((instances, kept, *image), dtype=y_BCHW.dtype, memory_format=form)
    grad_gamma_C, grad_beta_C = y_BCHW.new_empty(channels), y_BCHW.new_empty(channels)
    native.call(
        "norm_backward", error_BCHW, y_BCHW, pixels, channels, channel_K, kept, gamma_C, statistics_SC,
        sum_3C, int(uses_batch), int(rectified), error_BKHW, grad_gamma_C, grad_beta_C,
    )  # fmt: skip
    return error_BKHW, grad_gamma_C, grad_beta_C


def spread_kernels(gradient_KIJL: Tensor, channel_K: Tensor, channels: int, mirrored: bool) -> Tensor:
    """[channels, I, J, L]: the kept kernels' gradients at their channels, zero elsewhere; mirrored rows put right."""
    kept, *kernel = gradient_KIJL.shape
    out_CIJL = gradient_KIJL.new_empty(channels, *kernel)
    strides = gradient_KIJL.stride()
    native.call(
        "spread_kernels", gradient_KIJL, kept, *kernel, *strides, int(mirrored), channel_K, channels, out_CIJL
    )
    return out_CIJL


def turned_kernels(weight_CIJL: Tensor, channel_K: Tensor) -> Tensor:
    """[I, K, J, L], channels last: the kept kernels as the error goes back through them, rows and columns backwards."""
    _, inputs, *size = weight_CIJL.shape
    shape = inputs, len(channel_K), *size
    out_IKJL = torch.empty(shape, dtype=weight_CIJL.dtype, memory_format=torch.channels_last)
    strides = weight_CIJL.stride()
    native.call("turn_kernels", weight_CIJL, inputs, *size, *strides, channel_K, len(channel_K), out_IKJL)
    return out_IKJL


def _size(maps_BCHW: Tensor) -> tuple[int, int]:
    """N pixels of all instances, C channels."""
    return maps_BCHW.numel() // maps_BCHW.shape[1], maps_BCHW.shape[1]
