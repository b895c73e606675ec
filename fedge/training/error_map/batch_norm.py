"""Batch norm whose backward pass takes the kept channels alone.

    y^ = (y - mean) / sigma           out = gamma y^ + beta            n = B * H * W values per channel
    grad beta_k, gamma_k = sums of  delta_k,  delta_k y^_k
    delta_k  <-  gamma_k / sigma_k (delta_k - grad beta_k / n - y^_k grad gamma_k / n)           k kept

(Ioffe and Szegedy, ICML 2015; with running statistics the last line is gamma_k / sigma_k delta_k.) PyTorch's
operators need the kept channels gathered and put into their order first.
Shapes: B instances, C channels (K kept), H x W pixels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedge.training.error_map.channels import gather, norm_per_channel, spread

# PyTorch's batch norm in channels-last order works on vectors of channels; fewer than one vector are slow.
VECTOR_WIDTH = 16


class NormState(NamedTuple):
    """What the backward pass needs to know.

    statistics: mean and 1 / sigma. uses_batch: whether they are the mini-batch's own.
    """

    statistics_2C: Tensor
    uses_batch: bool
    epsilon: float


def norm_forward(y_BCHW: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, NormState]:
    """The layer's output. Running statistics move as in the layer's own forward."""
    mean_C, variance_C = norm.running_mean, norm.running_var
    uses_batch = norm.training or mean_C is None
    if uses_batch and y_BCHW.numel() == y_BCHW.shape[1]:
        F.batch_norm(y_BCHW, None, None, training=True)  # which refuses one value, in PyTorch's words
    out_BCHW, *statistics = torch.ops.aten.native_batch_norm.default(
        y_BCHW, norm.weight, norm.bias, mean_C, variance_C, uses_batch, next_momentum(norm), norm.eps
    )
    if not uses_batch and mean_C is not None and variance_C is not None:
        statistics = [mean_C, (variance_C + norm.eps).rsqrt()]
    return out_BCHW, NormState(torch.stack(statistics), uses_batch, norm.eps)


def block_norms(error_BCHW: Tensor, norm: NormState) -> Tensor:
    """||delta_j||_1 / sigma_j, [C], of the error behind the norm, in channels-last order."""
    return norm_per_channel(error_BCHW) * norm.statistics_2C[1]


def norm_backward(
    error_BCHW: Tensor,
    y_BCHW: Tensor,
    gamma_C: Tensor | None,
    channel_K: Tensor,
    norm: NormState,
) -> tuple[Tensor, Tensor, Tensor]:
    """The kept error maps before the norm, [B, K, H, W], and the gradients of gamma and beta, zero where dropped."""
    mean_K, scale_K = norm.statistics_2C[:, channel_K]
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


def _in_fast_order(maps_BKHW: Tensor) -> Tensor:
    fast = torch.channels_last if maps_BKHW.shape[1] >= VECTOR_WIDTH else torch.contiguous_format
    return maps_BKHW.contiguous(memory_format=fast)


def next_momentum(norm: nn.BatchNorm2d) -> float:
    """Of the running statistics; also counts the batch, as the layer's own forward does."""
    if not norm.training or norm.running_mean is None:
        return 0.0
    batches = norm.num_batches_tracked
    if batches is not None:
        batches.add_(1)
    if norm.momentum is not None:
        return norm.momentum
    return 0.0 if batches is None else 1 / float(batches)
