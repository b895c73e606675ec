"""Batch norm whose backward pass takes the kept channels alone.

    y^ = (y - mean) / sigma           out = gamma y^ + beta            n = B * H * W values per channel
    grad beta_k, gamma_k = sums of  delta_k,  delta_k y^_k
    delta_k  <-  gamma_k / sigma_k (delta_k - grad beta_k / n - y^_k grad gamma_k / n)           k kept

(Ioffe and Szegedy, ICML 2015; with running statistics the last line is gamma_k / sigma_k delta_k.) Both passes are
channelwise.c's where it can be had; PyTorch's operators need the kept channels gathered and put into their order first.
Shapes: B instances, C channels (K kept), H x W pixels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedge.training import channelwise
from fedge.training.kept_maps import gather, norm_per_channel, spread

# PyTorch's batch norm in channels-last order works on vectors of channels; fewer than one vector are slow.
VECTOR_WIDTH = 16


class NormState(NamedTuple):
    """What the backward pass needs to know.

    statistics: mean and 1 / sigma, and what else channelwise.c's forward pass leaves. uses_batch: whether they are the
    mini-batch's own. compiled: whether channelwise.c is at hand. rectified: whether the error is that behind a ReLU
    behind the norm, to be masked as it is read.
    """

    statistics_SC: Tensor
    uses_batch: bool
    epsilon: float
    compiled: bool
    rectified: bool = False


def can_rectify(x_BIHW: Tensor, norm: nn.BatchNorm2d) -> bool:
    """Whether `norm_forward` takes the ReLU behind the norm of a convolution of x along; only channelwise.c does."""
    fits = channelwise.takes_norm(x_BIHW, norm) and norm.num_features <= channelwise.MOST_CHANNELS
    return fits and _uses_batch(norm)


def norm_forward(y_BCHW: Tensor, norm: nn.BatchNorm2d, rectified: bool = False) -> tuple[Tensor, NormState]:
    """The layer's output, or a ReLU's behind it if `rectified`, where that can be; y is then in channels-last order.
    Running statistics move as in the layer's own forward."""
    uses_batch = _uses_batch(norm)
    compiled = channelwise.takes_norm(y_BCHW, norm)
    if uses_batch and y_BCHW.numel() == y_BCHW.shape[1]:
        F.batch_norm(y_BCHW, None, None, training=True)  # which refuses one value, in PyTorch's words
    if uses_batch and compiled:
        out_BCHW, statistics_SC = channelwise.norm_forward(y_BCHW, norm, rectified)
        return out_BCHW, NormState(statistics_SC, uses_batch, norm.eps, compiled, rectified)
    running = norm.running_mean, norm.running_var
    out_BCHW, *statistics = torch.ops.aten.native_batch_norm.default(
        y_BCHW, norm.weight, norm.bias, *running, uses_batch, next_momentum(norm), norm.eps
    )
    if not uses_batch:
        statistics = running[0], (running[1] + norm.eps).rsqrt()
    return out_BCHW, NormState(torch.stack(tuple(statistics)), uses_batch, norm.eps, compiled)


def block_norms(error_BCHW: Tensor, y_BCHW: Tensor, norm: NormState) -> tuple[Tensor, Tensor | None]:
    """||delta_j||_1 / sigma_j, [C], of the error behind the norm; and the sums that channelwise.c has made with it.

    The error is in channels-last order, here and below.
    """
    if norm.compiled:
        sum_3C = channelwise.block_sums(error_BCHW, y_BCHW, norm.statistics_SC, norm.rectified)
        return sum_3C[0], sum_3C
    return norm_per_channel(error_BCHW) * norm.statistics_SC[1], None


def norm_backward(
    error_BCHW: Tensor,
    y_BCHW: Tensor,
    gamma_C: Tensor | None,
    channel_K: Tensor,
    norm: NormState,
    sum_3C: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The kept error maps before the norm, [B, K, H, W], and the gradients of gamma and beta, zero where dropped.

    sum_3C: of `block_norms`.
    """
    if norm.compiled:
        return channelwise.norm_backward(
            error_BCHW,
            y_BCHW,
            channel_K,
            gamma_C,
            norm.statistics_SC,
            sum_3C,
            norm.uses_batch,
            norm.rectified,
        )
    mean_K, scale_K = norm.statistics_SC[:2, channel_K]
    running = (None, None) if norm.uses_batch else (mean_K, scale_K.square().reciprocal() - norm.epsilon)
    error_BKHW, *gradients = torch.ops.aten.native_batch_norm_backward.default(
        _in_fast_order(gather(error_BCHW, channel_K)),
        _in_fast_order(gather(y_BCHW, channel_K)),
        None if gamma_C is None else gamma_C[channel_K],
        *running,
        mean_K,
        scale_K,
        norm.uses_batch,
        norm.epsilon,
        [True, True, True],
    )
    return error_BKHW, *(spread(grad_K, channel_K, y_BCHW.shape[1]) for grad_K in gradients)


def _uses_batch(norm: nn.BatchNorm2d) -> bool:
    return norm.training or norm.running_mean is None


def _in_fast_order(maps_BKHW: Tensor) -> Tensor:
    fast = torch.channels_last if maps_BKHW.shape[1] >= VECTOR_WIDTH else torch.contiguous_format
    return maps_BKHW.contiguous(memory_format=fast)


def next_momentum(norm: nn.BatchNorm2d) -> float:
    """Of the running statistics; also counts the batch, as the layer's own forward does."""
    if not norm.training or norm.running_mean is None:
        return 0.0
    norm.num_batches_tracked.add_(1)
    return 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
