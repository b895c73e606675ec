"""Bytes that CPU operators take while they run, from the shapes: convolutions, one case of a norm, of a pool.

oneDNN, which does the convolutions, copies input, weight and output to layouts with channels in blocks of 16; that
decides LeNet's peak. With b(.) the bytes in that layout (0 for an input of up to 3 channels, read as it is), the
most held at once, results included, is

    forward          max(b(x) + b(w) + b(y), b(y) + y)
    error            max(b(dy) + b(w) + b(dx), b(dx) + dx)      where the input needs a gradient; one dx more
                                                                with a stride, but not for a depthwise layer
    weight gradient  dx + b(w) + max(b(dy) + b(x), w)
    1 x 1, stride 1  the results alone
    channels last    b(w) and the results, a weight gradient twice; where w is not in that order, one w more

A weight's gradient is made where the bias alone is trained, too, and thrown away.

Read off the allocator's events of torch 2.13 on AVX-512. On AVX2 the blocks are of 8 and this may be too high.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_BLOCK = 16  # channels; fixed rather than asked of this machine's CPU, so that every host says the same
_PLAIN_CHANNELS = 3


def inside_bytes(func: Any, args: tuple[Any, ...], result: Any) -> int:
    """Bytes the operator holds at its own peak, its results included; 0 where it is the results alone."""
    inside = _INSIDE.get(func)
    return inside(result, *args) if inside else 0


def _convolution(y: Tensor, x: Tensor, weight: Tensor, *options: Any) -> int:
    _, stride, _, _, transposed, *_ = options
    if transposed or _is_pointwise(weight, stride):
        return 0
    if _any_channels_last(x, weight):
        return _turned(weight) + _weight_copy(weight) + y.nbytes
    return max(_input_copy(x) + _weight_copy(weight) + _copy(y), _copy(y) + y.nbytes)


def _convolution_backward(results: Any, dy: Tensor, x: Tensor, weight: Tensor, *options: Any) -> int:
    _, stride, _, _, transposed, _, groups, (needs_error, needs_weight, needs_bias) = options
    if transposed or _is_pointwise(weight, stride):
        return 0
    needs_gradient = needs_weight or needs_bias  # oneDNN makes both or none
    error_bytes = x.nbytes if needs_error else 0
    if _any_channels_last(dy, x, weight):
        out_channels, in_channels = weight.shape[:2]
        per_pair = weight.nbytes // (out_channels * in_channels)
        inputs = _blocked(in_channels) if in_channels >= _BLOCK else in_channels
        error = per_pair * out_channels * _blocked(in_channels) if needs_error else 0
        gradient = per_pair * _blocked(out_channels) * inputs + 2 * weight.nbytes if needs_gradient else 0
        biases = out_channels * weight.element_size() if needs_bias else 0
        return _turned(weight) + error_bytes + max(error, gradient + biases)
    again = error_bytes if max(stride) > 1 and groups == 1 else 0
    error = max(_copy(dy) + _weight_copy(weight), error_bytes + again) + _copy(x) if needs_error else 0
    gradient = error_bytes + _weight_copy(weight) + max(_copy(dy) + _input_copy(x), weight.nbytes)
    return max(error, gradient if needs_gradient else 0)


def _max_pool_backward(dx: Tensor, dy: Tensor, x: Tensor, *options: Any) -> int:
    """Where error and input differ in layout, the result and the indices are copied to the error's."""
    indices = options[-1]
    return dx.nbytes * 2 + indices.nbytes if _any_channels_last(dy) != _any_channels_last(x) else 0


def _norm_backward(results: Any, dy: Tensor, x: Tensor, *options: Any) -> int:
    """Where error and input are alike in layout, the result is allocated twice, for a moment."""
    if _any_channels_last(dy) != _any_channels_last(x):
        return 0
    return x.nbytes + _total(results)


_INSIDE: dict[Any, Callable[..., int]] = {
    torch.ops.aten.convolution.default: _convolution,
    torch.ops.aten.convolution_backward.default: _convolution_backward,
    torch.ops.aten.native_batch_norm_backward.default: _norm_backward,
    torch.ops.aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
}


def _total(results: Iterable[Tensor | None]) -> int:
    return sum(tensor.nbytes for tensor in results if tensor is not None)


def _is_pointwise(weight_OIHW: Tensor, stride: list[int]) -> bool:
    """A matrix product, done in the plain layout."""
    return tuple(weight_OIHW.shape[2:]) == (1, 1) and max(stride) == 1


def _any_channels_last(*tensors_BCHW: Tensor) -> bool:
    return any(map(_is_channels_last, tensors_BCHW))


def _is_channels_last(x_BCHW: Tensor) -> bool:
    """As PyTorch tells: by the strides, which say it of a single channel too, where both orders are alike."""
    if x_BCHW.dim() != 4 or not x_BCHW.is_contiguous(memory_format=torch.channels_last):
        return False
    least = 0
    for dimension in (1, 3, 2, 0):
        stride, size = x_BCHW.stride(dimension), x_BCHW.shape[dimension]
        if stride < least or (dimension == 0 and least == x_BCHW.stride(1)):
            return False
        least = stride * size
    return True


def _turned(weight_OIHW: Tensor) -> int:
    """A kernel in plain order is brought into channels-last order where the maps are."""
    return 0 if weight_OIHW.is_contiguous(memory_format=torch.channels_last) else weight_OIHW.nbytes


def _blocked(channels: int) -> int:
    return -(-channels // _BLOCK) * _BLOCK


def _copy(x_BCHW: Tensor) -> int:
    """Bytes of a tensor in blocks of channels."""
    return x_BCHW.nbytes // x_BCHW.shape[1] * _blocked(x_BCHW.shape[1])


def _input_copy(x_BCHW: Tensor) -> int:
    return _copy(x_BCHW) if x_BCHW.shape[1] > _PLAIN_CHANNELS else 0


def _weight_copy(weight_OIHW: Tensor) -> int:
    out_channels, in_channels, *_ = weight_OIHW.shape
    blocked_in = _blocked(in_channels) if in_channels > _PLAIN_CHANNELS else in_channels
    return weight_OIHW.nbytes // (out_channels * in_channels) * _blocked(out_channels) * blocked_in
