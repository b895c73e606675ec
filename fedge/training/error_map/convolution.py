"""A convolution's product, and the two of its backward pass over the K kept error maps alone.

    y_c        = sum over i of          W_ci * x_i + bias_c
    grad x     = sum over kept k of     rot(W_k) * delta_k                                 (EIF + EMP, equation 8)
    grad W_k   = sum over instances of  x * delta_k                    k kept, else 0      (equation 12)

Shapes: B instances, C channels out (K kept), I channels in, H x W pixels, J, L a kernel's rows and columns.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fedge.training.error_map.batch_norm import VECTOR_WIDTH
from fedge.training.error_map.channels import CHANNELS_LAST, gather, spread_kernels
from fedge.training.error_map.geometry import Geometry


def convolve(x_BIHW: Tensor, weight_CIJL: Tensor, bias_C: Tensor | None, geometry: Geometry) -> Tensor:
    """The layer's output, [B, C, H', W']."""
    how = geometry.stride, geometry.padding, geometry.dilation, geometry.groups
    return F.conv2d(x_BIHW, weight_CIJL, bias_C, *how)


def propagate(
    error_BKHW: Tensor, x_BIHW: Tensor, weight_CIJL: Tensor, channel_K: Tensor, geometry: Geometry
) -> Tensor:
    """The error at the convolution's input, [B, I, H, W], from the kept maps at its output."""
    kernel_KIJL = weight_CIJL.index_select(0, channel_K)
    if not geometry.depthwise:
        return _backward(error_BKHW, x_BIHW, kernel_KIJL, geometry, geometry.groups, "x")
    inputs = _inputs_of(channel_K, kernel_KIJL.shape[1])
    kept = _backward(error_BKHW, gather(x_BIHW, inputs), kernel_KIJL, geometry, len(channel_K), "x")
    return torch.zeros_like(x_BIHW).index_copy_(1, inputs, kept)


def weight_gradient(
    error_BKHW: Tensor,
    x_BIHW: Tensor,
    weight_CIJL: Tensor,
    channel_K: Tensor,
    geometry: Geometry,
) -> Tensor:
    """[C, I, J, L], zero where dropped. Of the weight, only the shape matters."""
    channels, width, *size = weight_CIJL.shape
    if geometry.skips_pixels:
        # Only what it reads: oneDNN's own kernel for this writes out of bounds with two threads (torch 2.13).
        rows, columns = geometry.stride
        x_BIHW = x_BIHW[:, :, ::rows, ::columns].contiguous(memory_format=CHANNELS_LAST)
        geometry = replace(geometry, stride=(1, 1))
    groups = geometry.groups
    if geometry.depthwise:
        x_BIHW, groups = gather(x_BIHW, _inputs_of(channel_K, width)), len(channel_K)
    exchanged = len(channel_K) < VECTOR_WIDTH <= x_BIHW.shape[1] and geometry.exchangeable
    if exchanged:
        gradient_KIJL = _mirrored_weight_gradient(error_BKHW, x_BIHW, size, geometry)
    else:
        kernel_KIJL = _unfilled(error_BKHW, len(channel_K), width, *size)
        gradient_KIJL = _backward(error_BKHW, x_BIHW, kernel_KIJL, geometry, groups, "weight")
    return spread_kernels(gradient_KIJL, channel_K, channels, mirrored=exchanged)


def _mirrored_weight_gradient(
    error_BKHW: Tensor, x_BIHW: Tensor, size: Sequence[int], geometry: Geometry
) -> Tensor:
    """The same sums with x in the error's place: few channels become inputs, which need no vector of their own.

    With 2 p = d (J - 1), mirrored rows j' = J - 1 - j:

    grad W[k, i, j] = sum_h x[i, h + j d - p] error[k, h]  =  sum_u error[k, u + j' d - p] x[i, u]
    """
    kernel_IKJL = _unfilled(error_BKHW, x_BIHW.shape[1], error_BKHW.shape[1], *size)
    return _backward(x_BIHW, error_BKHW, kernel_IKJL, geometry, 1, "weight").transpose(0, 1)


def _unfilled(error: Tensor, *shape: int) -> Tensor:
    """Kernels of which only the shape matters; in the order that spares PyTorch a copy."""
    return torch.empty(shape, dtype=error.dtype, device=error.device, memory_format=CHANNELS_LAST)


def _backward(
    error: Tensor, x: Tensor, kernel: Tensor, geometry: Geometry, groups: int, of: Literal["x", "weight"]
) -> Tensor:
    mask = [of == "x", of == "weight", False]
    gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward.default(
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


def _inputs_of(channel_K: Tensor, width: int) -> Tensor:
    """Input channels of depthwise output channels, `width` each."""
    return (channel_K[:, None] * width + torch.arange(width, device=channel_K.device)).flatten()
