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

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fedge.training.error_map.channels import CHANNELS_LAST, as_pixels
from fedge.training.error_map.geometry import Geometry
from fedge.training.error_map.units import Drawn
from fedge.training.torch_private import FakeTensor

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


def gathered_gradients(
    error_BCHW: Tensor,
    drawn: Drawn,
    x_BIHW: Tensor,
    weight_CIJL: Tensor,
    geometry: Geometry,
    wants: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Of x and weight, those of them that `wants` a gradient, from the drawn pixels; x in channels-last order."""
    channels, inputs, *kernel = weight_CIJL.shape
    error_NC, output = as_pixels(error_BCHW), error_BCHW.shape[2:]
    kernel_CX = weight_CIJL.permute(0, 2, 3, 1).reshape(channels, -1)
    grad_CX = torch.zeros_like(kernel_CX)
    grad_x_BHWI = torch.empty_like(x_BIHW).permute(0, 2, 3, 1)
    for some, kept in _parts(drawn, len(x_BIHW), output.numel(), kernel_CX.shape[1]):
        if kept.start == kept.stop:
            grad_x_BHWI[some] = 0
            continue
        unit_K = drawn.unit_K[kept]
        error_KC = error_NC.index_select(0, unit_K) * drawn.weight_K[kept, None]
        x_BHWI = _padded(x_BIHW[some], geometry)
        places = _places(unit_K - some.start * output.numel(), x_BHWI.shape, output, geometry)
        if wants[1]:
            grad_CX.addmm_(error_KC.T, _patches(x_BHWI, places, geometry))
        if wants[0]:
            part_PI = (error_KC @ kernel_CX).view(-1, inputs)
            grad_x_BHWI[some] = _inner(_added_up(part_PI, places, x_BHWI.shape), geometry)
    grad_weight = grad_CX.view(channels, *kernel, inputs).permute(0, 3, 1, 2)
    return grad_x_BHWI.permute(0, 3, 1, 2) if wants[0] else None, grad_weight if wants[1] else None


def _parts(drawn: Drawn, instances: int, area: int, width: int) -> Iterator[tuple[slice, slice]]:
    """A few instances, and which of the drawn pixels are theirs. width: numbers in a patch."""
    kept = len(drawn.unit_K)
    step = max(1, CACHED_NUMBERS * instances // max(1, kept * width))
    firsts = list(range(0, instances, step))
    if isinstance(drawn.unit_K, FakeTensor):  # at most: those of the first are all kept
        begins = [min(kept, first * area) for first in firsts]
    else:
        begins = torch.searchsorted(drawn.unit_K, drawn.unit_K.new_tensor(firsts) * area).tolist()
    for first, begin, end in zip(firsts, begins, [*begins[1:], kept], strict=True):
        yield slice(first, first + step), slice(begin, end)


def _padded(x_BIHW: Tensor, geometry: Geometry) -> Tensor:
    """[B, H, W, I] with the zeros that the kernel reads."""
    down, across = geometry.padding
    x_BHWI = x_BIHW.contiguous(memory_format=CHANNELS_LAST).permute(0, 2, 3, 1)
    return F.pad(x_BHWI, (0, 0, across, across, down, down)).contiguous()


def _inner(padded_BHWI: Tensor, geometry: Geometry) -> Tensor:
    """Without those zeros."""
    (down, across), (_, height, width, _) = geometry.padding, padded_BHWI.shape
    return padded_BHWI[:, down : height - down, across : width - across]


class _Places(NamedTuple):
    """Where patches lie: each one's first row, and how many rows further its T places are."""

    corner_K: Tensor
    offsets: list[int]


def _places(pixel_K: Tensor, padded: torch.Size, output: torch.Size, geometry: Geometry) -> _Places:
    _, height, width, _ = padded
    rows, columns = output
    down_K = pixel_K // (rows * columns) * height + pixel_K // columns % rows * geometry.stride[0]
    corner_K = down_K * width + pixel_K % columns * geometry.stride[1]
    down, across = (range(0, d * k, d) for d, k in zip(geometry.dilation, geometry.kernel, strict=True))
    return _Places(corner_K, [row * width + column for row in down for column in across])


def _patches(x_BHWI: Tensor, places: _Places, geometry: Geometry) -> Tensor:
    """[K, J L I]; pixels that lie side by side are read at once."""
    channels = x_BHWI.shape[-1]
    length = geometry.kernel[1] if geometry.dilation[1] == 1 else 1
    runs = x_BHWI.numel() // channels - length + 1
    run_RX = x_BHWI.as_strided((runs, length * channels), (channels, 1))
    run_KJ = places.corner_K[:, None] + places.corner_K.new_tensor(places.offsets[::length])
    return run_RX.index_select(0, run_KJ.flatten()).view(len(run_KJ), len(places.offsets) * channels)


def _added_up(part_PI: Tensor, places: _Places, padded: torch.Size) -> Tensor:
    """[B, H, W, I] of the padded input; part_PI: T rows a patch."""
    instances, height, width, channels = padded
    rows, each, reach = instances * height * width, len(places.offsets), places.offsets[-1]
    corner_K, counted_K = places.corner_K, torch.arange(len(places.corner_K), device=part_PI.device)
    patch_R = corner_K.new_full(
        (reach + rows,), -1
    )  # of which a row is the corner; `reach` rows before the first
    patch_R[corner_K + reach] = counted_K
    patch_RT = torch.stack([patch_R[reach - offset :][:rows] for offset in places.offsets], 1)
    place_RT = patch_RT * each + torch.arange(each, device=part_PI.device)
    there_RT = patch_RT >= 0
    fake = isinstance(place_RT, FakeTensor)
    place_P = place_RT.flatten()[: len(part_PI)].clone() if fake else place_RT[there_RT]
    begin_R = F.pad(there_RT.sum(1).cumsum(0)[:-1], (1, 0))
    return F.embedding_bag(place_P, part_PI, begin_R, mode="sum").view(instances, height, width, channels)
