"""Choosing the error maps worth keeping, and moving between all C maps and the K kept ones.

    norm_j = sum over the mini-batch's pixels of |delta_j|        ||delta_j||_1 of EIF + EMP (arXiv 2007.03213), (11)
    kept   = the K channels of highest score, which scores.py makes of the norms

Maps are held in channels-last order, in which the products over few channels run at full speed on a CPU; then all maps
are one matrix of N = B * H * W pixels by C channels, and the kept ones are columns of it.
Shapes: B instances, C channels (K kept), H x W pixels.
"""

import torch
from torch import Tensor

CHANNELS_LAST = torch.channels_last
CACHED_ELEMENTS = 1 << 17


def norm_per_channel(error_BCHW: Tensor) -> Tensor:
    """||delta_j||_1, [C]."""
    error_NC = as_pixels(error_BCHW)
    # A few pixels at a time, so that their absolute values are still in the cache when they are summed; torch's
    # vector_norm over pixels is five times slower.
    part_NC = torch.empty_like(error_NC[: max(1, CACHED_ELEMENTS // error_NC.shape[1])])
    norm_C = error_NC.new_zeros(error_NC.shape[1])
    for error in error_NC.split(len(part_NC)):
        norm_C += torch.abs(error, out=part_NC[: len(error)]).sum(0)
    return norm_C


def as_pixels(maps_BCHW: Tensor) -> Tensor:
    """[N, C], a view of maps in channels-last order."""
    return maps_BCHW.permute(0, 2, 3, 1).reshape(-1, maps_BCHW.shape[1]).contiguous()


def as_maps(pixel_NK: Tensor, shape: torch.Size) -> Tensor:
    """[B, K, H, W], a view in channels-last order; `shape` is that of all C maps."""
    instances, _, height, width = shape
    return pixel_NK.view(instances, height, width, -1).permute(0, 3, 1, 2)


def gather(maps_BCHW: Tensor, channel_K: Tensor) -> Tensor:
    """The selected channels [B, K, H, W], channels last; the input itself where all are selected."""
    if len(channel_K) == maps_BCHW.shape[1]:
        return maps_BCHW
    return as_maps(as_pixels(maps_BCHW).index_select(1, channel_K), maps_BCHW.shape)


def spread(rows_K: Tensor, channel_K: Tensor, channels: int) -> Tensor:
    """Rows back at their channels, zero elsewhere: [channels, ...]."""
    return rows_K.new_zeros(channels, *rows_K.shape[1:]).index_copy_(0, channel_K, rows_K)


def spread_kernels(gradient_KIJL: Tensor, channel_K: Tensor, channels: int, *, mirrored: bool) -> Tensor:
    """Gradients of kept kernels back at their channels, zero elsewhere: [C, I, J, L]; mirrored ones put right."""
    return spread(gradient_KIJL.flip(2, 3) if mirrored else gradient_KIJL, channel_K, channels)
