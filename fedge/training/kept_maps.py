"""Choosing the error maps worth keeping, and moving between all C maps and the K kept ones.

    norm_j = sum over the mini-batch's pixels of |delta_j|        ||delta_j||_1 of EIF + EMP (arXiv 2007.03213), (11)
    kept   = the K channels of highest score, which error_scores.py makes of the norms

Maps are held in channels-last order, in which the products over few channels run at full speed on a CPU; then all maps
are one matrix of N = B * H * W pixels by C channels, and the kept ones are columns of it.
Shapes: B instances, C channels (K kept), H x W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedge.training.macs import BackwardCost

CACHED_ELEMENTS = 1 << 17


@dataclass(frozen=True, eq=False)
class Kept:
    """The kept maps of an error: their channels [K] and the maps [B, K, H, W], channels last."""

    channel_K: Tensor
    error_BKHW: Tensor


@dataclass(frozen=True, eq=False)
class MapSelector:
    """Chooses a layer's maps in every backward pass.

    best: kept channels [K] of norms [C]; None keeps all. record: is told what the ranking cost.
    rank_every: norms are taken over every so manieth instance.
    """

    best: Callable[[Tensor], Tensor] | None
    record: Callable[[BackwardCost], None]
    rank_every: int = 1

    def __call__(self, error_BCHW: Tensor, scale_C: Tensor | None = None) -> Kept:
        """Rank the maps and gather the best. `scale` is the norm's 1 / sigma."""
        if self.best is None:
            return Kept(torch.arange(error_BCHW.shape[1], device=error_BCHW.device), error_BCHW)
        error_NC = as_pixels(error_BCHW)
        ranked_BP = error_NC.view(len(error_BCHW), -1)[:: self.rank_every]
        norm_C = norm_per_channel(ranked_BP, error_NC.shape[1])
        channel_K = self.best(norm_C if scale_C is None else norm_C * scale_C)
        self.record(BackwardCost(selection_adds=ranked_BP.numel()))
        return Kept(channel_K, as_maps(error_NC.index_select(1, channel_K), error_BCHW.shape))


def norm_per_channel(error_BP: Tensor, channels: int) -> Tensor:
    """||delta_j||_1 from P = H * W * C numbers per instance, a few instances at a time, so that their absolute values
    are still in the cache when they are summed. (torch's vector_norm over these axes is five times slower.)
    """
    part_BP = torch.empty_like(error_BP[: max(1, CACHED_ELEMENTS // error_BP.shape[1])])
    norm_C = error_BP.new_zeros(channels)
    for part in error_BP.split(len(part_BP)):
        norm_C += torch.abs(part, out=part_BP[: len(part)]).view(-1, channels).sum(0)
    return norm_C


def as_pixels(maps_BCHW: Tensor) -> Tensor:
    """[N, C], a view of maps in channels-last order."""
    return maps_BCHW.permute(0, 2, 3, 1).reshape(-1, maps_BCHW.shape[1]).contiguous()


def as_maps(pixel_NK: Tensor, shape: torch.Size) -> Tensor:
    """[B, K, H, W], a view in channels-last order; `shape` is that of all C maps."""
    instances, _, height, width = shape
    return pixel_NK.view(instances, height, width, -1).permute(0, 3, 1, 2)


def gather(maps_BCHW: Tensor, channel_K: Tensor) -> Tensor:
    """[B, K, H, W] of them, channels last."""
    return as_maps(as_pixels(maps_BCHW).index_select(1, channel_K), maps_BCHW.shape)


def spread(rows_K: Tensor, channel_K: Tensor, channels: int) -> Tensor:
    """Rows back at their channels, zero elsewhere: [channels, ...]."""
    return rows_K.new_zeros(channels, *rows_K.shape[1:]).index_copy_(0, channel_K, rows_K)
