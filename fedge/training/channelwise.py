"""channelwise.c on tensors: what error-map pruning does channel by channel, products aside.

Shapes: B instances, C channels (K kept), H x W pixels, channels last; float32 or float64.
"""

import torch
from torch import Tensor, nn

from fedge.training import native

MOST_CHANNELS = 1 << 12  # what is summed up lies on the threads' stacks


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


def absolute_sums(error_BCHW: Tensor, statistics_2C: Tensor | None = None) -> Tensor:
    """[C]: the sum of |e| over pixels, times 1 / sigma of the norm before it, if there is one."""
    sum_C = error_BCHW.new_empty(error_BCHW.shape[1])
    native.call("absolute_sums", error_BCHW, *_size(error_BCHW), statistics_2C, sum_C)
    return sum_C


def best_channels(score_C: Tensor, kept: int, groups: int) -> Tensor:
    """[K], ascending: those of highest score, as many in every group."""
    channel_K = torch.empty(kept, dtype=torch.int64)
    native.call("best_channels", score_C, groups, len(score_C) // groups, kept // groups, channel_K)
    return channel_K


def norm_forward(y_BCHW: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Batch norm by the pixels' own statistics, and these: mean and 1 / sigma, [2, C]. Running ones follow."""
    out_BCHW = torch.empty_like(y_BCHW)
    statistics_2C = y_BCHW.new_empty(2, y_BCHW.shape[1])
    running = norm.running_mean, norm.running_var, norm.num_batches_tracked
    momentum = -1.0 if norm.momentum is None else float(norm.momentum)
    parameters = norm.weight, norm.bias, float(norm.eps)
    native.call(
        "norm_forward", y_BCHW, *_size(y_BCHW), *parameters, *running, momentum, statistics_2C, out_BCHW
    )
    return out_BCHW, statistics_2C


def norm_backward(
    error_BCHW: Tensor,
    y_BCHW: Tensor,
    channel_K: Tensor,
    gamma_C: Tensor | None,
    statistics_2C: Tensor,
    uses_batch: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The kept error before the norm [B, K, H, W], and the gradients of gamma and beta [C], zero where dropped."""
    (pixels, channels), kept = _size(y_BCHW), len(channel_K)
    (instances, _, *image), form = y_BCHW.shape, torch.channels_last
    error_BKHW = torch.empty((instances, kept, *image), dtype=y_BCHW.dtype, memory_format=form)
    grad_gamma_C, grad_beta_C = y_BCHW.new_empty(channels), y_BCHW.new_empty(channels)
    native.call(
        "norm_backward", error_BCHW, y_BCHW, pixels, channels, channel_K, kept, gamma_C, statistics_2C,
        int(uses_batch), error_BKHW, grad_gamma_C, grad_beta_C,
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


def _size(maps_BCHW: Tensor) -> tuple[int, int]:
    """N pixels of all instances, C channels."""
    return maps_BCHW.numel() // maps_BCHW.shape[1], maps_BCHW.shape[1]
