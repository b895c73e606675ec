"""The two backward products of a convolution from gathered pixels: what a dropped pixel would have cost is not done.

With the patch P of the input under the kernel at an output pixel n = (b, u, v), a convolution is matrix products:

    grad W     =  sum over kept n of   (delta_n / q_n)  outer  P_n                     [C, J L I]
    grad P_n   =  W^T (delta_n / q_n),   added up where patches overlap                [J L I], n kept

A kept pixel is a row of both, whose length is what a row costs. Patches are read a kernel's row at a time, L pixels of
I numbers side by side in channels-last order. They are added up by pixels of the input, each of which lies in up to J L
kept patches: a bag of rows for PyTorch's embedding_bag. All of it a few instances at a time, so that patches, J L times
as large as what they are made of, stay in the processor's cache.

Gathering takes time for every number of a patch, the products for every number times C: it pays in wide layers alone
(`pays`), measured by `python -m benchmarks gradients_clock`.
Shapes: B instances, C channels out, I in, H x W pixels, J, L a kernel's rows and columns, T = J L; K kept pixels, R
pixels of the padded input.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fedge.training.error_map.channels import CHANNELS_LAST, as_pixels
from fedge.training.error_map.geometry import Geometry
from fedge.training.error_map.units import Drawn

CACHED_NUMBERS = 1 << 18
"""Of the patches of a few instances: 1 MB of floats."""
LEAST_CHANNELS = 256
"""Of input and output, for gathering to pay."""
MOST_KEPT = 0.6
"""Share of pixels, likewise."""


def pays(keep: float, weight_CIJL: Tensor, geometry: Geometry) -> bool:
    """Whether products of a share of the pixels, gathered, are sooner done than dense ones in such a convolution."""
    wide = min(weight_CIJL.shape[:2]) >= LEAST_CHANNELS
    return keep <= MOST_KEPT and geometry.groups == 1 and wide


class _Places(NamedTuple):
    """Where patches lie. corner_K: a patch's first row; offset_T: how many rows further its places are."""

    corner_K: Tensor
    offset_T: Tensor


def gathered_gradients(
    error_BCHW: Tensor,
    drawn: Drawn,
    x_BIHW: Tensor,
    weight_CIJL: Tensor,
    geometry: Geometry,
    wants: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Of x and weight, those of them that `wants` a gradient, from the drawn pixels; x in channels-last order."""
    instances, _, *output = error_BCHW.shape
    error_NC, area = as_pixels(error_BCHW), output[0] * output[1]
    channels, inputs, *kernel = weight_CIJL.shape
    grad_x_BHWI = torch.empty_like(x_BIHW).permute(0, 2, 3, 1) if wants[0] else None
    kernel_CX = weight_CIJL.permute(0, 2, 3, 1).reshape(channels, -1)
    grad_CX = torch.zeros_like(kernel_CX)
    step = max(1, CACHED_NUMBERS * instances // max(1, len(drawn.unit_K) * kernel_CX.shape[1]))
    firsts = list(range(0, instances, step))
    bounds = torch.searchsorted(
        drawn.unit_K, torch.tensor(firsts, device=drawn.unit_K.device) * area
    ).tolist()
    for first, begin, end in zip(firsts, bounds, [*bounds[1:], len(drawn.unit_K)], strict=True):
        unit_K = drawn.unit_K[begin:end]
        error_KC = error_NC.index_select(0, unit_K) * drawn.weight_K[begin:end, None]
        x_BHWI = _padded(x_BIHW[first : first + step], geometry)
        places = _places(unit_K - first * area, x_BHWI.shape, (output[0], output[1]), geometry)
        if wants[1]:
            grad_CX.addmm_(error_KC.T, _patches(x_BHWI, places, kernel[1], geometry))
        if grad_x_BHWI is not None:
            rows_KX = error_KC @ kernel_CX
            down, across = geometry.padding
            inner = _added_up(rows_KX.view(-1, inputs), places, x_BHWI.shape)[
                :, down : x_BHWI.shape[1] - down, across : x_BHWI.shape[2] - across
            ]
            grad_x_BHWI[first : first + step] = inner
    grad_weight = grad_CX.view(channels, *kernel, inputs).permute(0, 3, 1, 2)
    return grad_x_BHWI if grad_x_BHWI is None else grad_x_BHWI.permute(0, 3, 1, 2), (
        grad_weight if wants[1] else None
    )


def _padded(x_BIHW: Tensor, geometry: Geometry) -> Tensor:
    """[B, H, W, I] with the zeros that the kernel reads."""
    down, across = geometry.padding
    x_BHWI = x_BIHW.contiguous(memory_format=CHANNELS_LAST).permute(0, 2, 3, 1)
    return F.pad(x_BHWI, (0, 0, across, across, down, down)).contiguous()


def _places(pixel_K: Tensor, padded: torch.Size, output: tuple[int, int], geometry: Geometry) -> _Places:
    _, height, width, _ = padded
    rows, columns = output
    down_K = pixel_K // (rows * columns) * height + pixel_K // columns % rows * geometry.stride[0]
    corner_K = down_K * width + pixel_K % columns * geometry.stride[1]
    down_J, across_L = (
        torch.arange(size, device=pixel_K.device) * apart
        for size, apart in zip(geometry.kernel, geometry.dilation, strict=True)
    )
    return _Places(corner_K, (down_J[:, None] * width + across_L).flatten())


def _patches(x_BHWI: Tensor, places: _Places, columns: int, geometry: Geometry) -> Tensor:
    """[K, J L I]; pixels that lie side by side are read at once."""
    channels = x_BHWI.shape[-1]
    rows, length = x_BHWI.numel() // channels, columns if geometry.dilation[1] == 1 else 1
    run_RX = x_BHWI.as_strided((rows - length + 1, length * channels), (channels, 1))
    run_KJ = places.corner_K[:, None] + places.offset_T[::length]
    return run_RX.index_select(0, run_KJ.flatten()).view(len(run_KJ), -1)


def _added_up(part_PI: Tensor, places: _Places, padded: torch.Size) -> Tensor:
    """[B, H, W, I] of the padded input; part_PI: T rows a patch."""
    instances, height, width, channels = padded
    rows, places_T, reach = instances * height * width, len(places.offset_T), int(places.offset_T[-1])
    patch_R = places.corner_K.new_full(
        (reach + rows,), -1
    )  # whose corner it is; none is in front of the first row
    patch_R[places.corner_K + reach] = torch.arange(len(places.corner_K), device=part_PI.device)
    touching_RT = torch.stack([patch_R[reach - o : reach - o + rows] for o in places.offset_T.tolist()], 1)
    there_RT = touching_RT >= 0
    place_RT = touching_RT * places_T + torch.arange(places_T, device=part_PI.device)
    end_R = there_RT.sum(1).cumsum(0)
    added_RI = F.embedding_bag(place_RT[there_RT], part_PI, F.pad(end_R[:-1], (1, 0)), mode="sum")
    return added_RI.view(instances, height, width, channels)
