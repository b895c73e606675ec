"""direct_convolution.c as PyTorch operators: a convolution by 3 x 3 kernels and its two gradients, over few channels.

    fedge::convolve          y = x * W + bias
    fedge::propagate         grad x = rot(W_k) * error_k, summed over the kept k
    fedge::kernel_gradient   grad W_k = x * error_k

Operators, so that profilers show them, FlopCounterMode counts them and fake tensors pass through. Shapes: B instances,
C channels out (K kept), I channels in, H x W pixels, channels last, J, L a kernel's rows and columns; float32 or
float64.
"""

from functools import cache
from math import prod

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from fedge.training import channelwise, native
from fedge.training.geometry import Geometry

KERNEL = (3, 3)
STRIDES = ((1, 1), (2, 2))
VECTOR = 16  # numbers of the widest vector
PARTS = 16  # of the instances, whose gradients are summed up apart
MOST_NUMBERS = 1 << 15  # of a row with its zeros, of which three lie on a thread's stack
# Where it is the faster one (benchmarks/direct_convolution.py): up to so many channels, up to so many inputs in the
# kernels' gradient, and from so many columns on, as eight pixels are made at a time.
NARROW, NARROW_INPUTS, COLUMNS = 64, 48, 7

Pair = tuple[int, int]


def pays(x_BIHW: Tensor, weight_CIJL: Tensor, geometry: Geometry) -> bool:
    """Whether `convolve` and `propagate` work here, and faster than PyTorch's products."""
    narrow = _is_narrow(tuple(x_BIHW.shape[2:]), tuple(weight_CIJL.shape[:2]), geometry)
    return narrow and takes(x_BIHW, weight_CIJL, geometry)


def gradient_pays(x_BIHW: Tensor, weight_CIJL: Tensor, geometry: Geometry) -> bool:
    """Whether `kernel_gradient` does."""
    return VECTOR <= x_BIHW.shape[1] <= NARROW_INPUTS and pays(x_BIHW, weight_CIJL, geometry)


def exchanged_gradient_pays(
    error_BKHW: Tensor, x_BIHW: Tensor, weight_CIJL: Tensor, geometry: Geometry
) -> bool:
    """Whether it does with the error in the input's place, whose channels are too few for a vector."""
    fills = x_BIHW.shape[1] < VECTOR <= error_BKHW.shape[1]
    return fills and geometry.exchangeable and pays(x_BIHW, weight_CIJL, geometry)


def takes(x_BIHW: Tensor, weight_CIJL: Tensor, geometry: Geometry) -> bool:
    """Whether `convolve` and `propagate` work here on such maps; what fits no kernel is left to PyTorch to refuse."""
    fits = _fits(tuple(x_BIHW.shape[1:]), tuple(weight_CIJL.shape[:2]), geometry)
    return fits and weight_CIJL.dtype == x_BIHW.dtype and channelwise.takes(x_BIHW)


@cache
def _is_narrow(image: Pair, channels: Pair, geometry: Geometry) -> bool:
    columns = min(image[1], geometry.output_size(*image)[1])
    return max(channels) <= NARROW and columns >= COLUMNS


@cache
def _fits(picture: tuple[int, int, int], channels: Pair, geometry: Geometry) -> bool:
    inputs, height, width = picture
    return (
        geometry.kernel == KERNEL
        and geometry.stride in STRIDES
        and geometry.dilation == (1, 1)
        and geometry.groups == 1
        and max(geometry.padding) < min(KERNEL)
        and channels[1] == inputs
        and min(geometry.output_size(height, width)) > 0
        and (width + 3 * VECTOR) * max(channels) <= MOST_NUMBERS
    )


def convolve(x_BIHW: Tensor, weight_CIJL: Tensor, bias_C: Tensor | None, geometry: Geometry) -> Tensor:
    """[B, C, H', W'], channels last."""
    out_size = geometry.output_size(*x_BIHW.shape[2:])
    how = geometry.stride[0], geometry.padding, out_size
    return torch.ops.fedge.convolve.default(x_BIHW, weight_CIJL, bias_C, *how)


def propagate(
    error_BKHW: Tensor, x_BIHW: Tensor, weight_CIJL: Tensor, channel_K: Tensor, geometry: Geometry
) -> Tensor:
    """The error at the input x, [B, I, H, W], channels last."""
    how = geometry.stride[0], geometry.padding, x_BIHW.shape[2:]
    return torch.ops.fedge.propagate.default(_last(error_BKHW), weight_CIJL, channel_K, *how)


def kernel_gradient(error_BKHW: Tensor, x_BIHW: Tensor, geometry: Geometry) -> Tensor:
    """[K, I, J, L], of the kept kernels; of a vector of inputs at least."""
    how = geometry.stride[0], geometry.padding
    return torch.ops.fedge.kernel_gradient.default(_last(error_BKHW), _last(x_BIHW), *how)


def scratch_numbers(inputs: int, channels: int) -> int:
    """What a convolution from `inputs` maps to `channels` lays kernels and bias out in."""
    return _whole(channels) * (prod(KERNEL) * _whole(inputs) + 1)


def sums_numbers(inputs: int, kept: int) -> int:
    """What `kernel_gradient` sums up in; its result is the first of them."""
    return PARTS * prod(KERNEL) * kept * _whole(inputs)


def _last(maps_BCHW: Tensor) -> Tensor:
    return maps_BCHW.contiguous(memory_format=torch.channels_last)


def _whole(channels: int) -> int:
    """Rounded up to whole vectors."""
    return -(-channels // VECTOR) * VECTOR


def _convolve(
    x_BIHW: Tensor, weight_CIJL: Tensor, bias_C: Tensor | None, stride: int, before: Pair, out: Pair
) -> Tensor:
    bias_C = None if bias_C is None else bias_C.contiguous()
    out_BCHW = _maps(x_BIHW, len(weight_CIJL), out)
    how = *weight_CIJL.stride(), False, None, bias_C, stride
    _call(x_BIHW, 1, before, weight_CIJL, how, out_BCHW)
    return out_BCHW


def _propagate(
    error_BKHW: Tensor, weight_CIJL: Tensor, channel_K: Tensor, stride: int, before: Pair, out: Pair
) -> Tensor:
    """A convolution of the error, its pixels a stride apart, by mirrored kernels."""
    error_BIHW = _maps(error_BKHW, weight_CIJL.shape[1], out)
    of_c, of_i, of_j, of_l = weight_CIJL.stride()
    how = of_i, of_c, of_j, of_l, True, channel_K, None, 1
    before = tuple(size - 1 - zeros for size, zeros in zip(KERNEL, before, strict=True))
    _call(error_BKHW, stride, before, weight_CIJL, how, error_BIHW)
    return error_BIHW


def _kernel_gradient(error_BKHW: Tensor, x_BIHW: Tensor, stride: int, before: Pair) -> Tensor:
    (instances, inputs, *image), (_, kept, *out) = x_BIHW.shape, error_BKHW.shape
    sums = x_BIHW.new_empty(sums_numbers(inputs, kept))
    numbers = instances, *image, inputs, error_BKHW, *out, kept, stride, *before, sums, PARTS
    native.call("kernel_gradient", x_BIHW, *numbers)
    return sums[: prod(KERNEL) * kept * inputs].view(*KERNEL, kept, inputs).permute(2, 3, 0, 1)


def _call(x_BIHW: Tensor, apart: int, before: Pair, kernel: Tensor, how: tuple, out_BCHW: Tensor) -> None:
    (instances, inputs, *image), (_, channels, *out) = x_BIHW.shape, out_BCHW.shape
    scratch = x_BIHW.new_empty(scratch_numbers(inputs, channels))
    read = instances, *image, inputs, apart, *before, kernel, *how
    native.call("convolve", x_BIHW, *read, out_BCHW, *out, channels, scratch)


def _maps(like_BIHW: Tensor, channels: int, image: Pair) -> Tensor:
    shape = len(like_BIHW), channels, *image
    form = torch.channels_last
    return torch.empty(shape, dtype=like_BIHW.dtype, device=like_BIHW.device, memory_format=form)


def _register() -> torch.library.Library:
    """The operators; those of shapes alone (Meta) are the same, as there are no numbers to call C for."""
    library = torch.library.Library("fedge", "DEF")
    how = "int stride, int[] before"
    for schema, function in (
        (f"convolve(Tensor x, Tensor weight, Tensor? bias, {how}, int[] out) -> Tensor", _convolve),
        (f"propagate(Tensor error, Tensor weight, Tensor channel, {how}, int[] out) -> Tensor", _propagate),
        (f"kernel_gradient(Tensor error, Tensor x, {how}) -> Tensor", _kernel_gradient),
    ):
        name = library.define(schema)
        for device in ("CPU", "Meta"):
            library.impl(name, function, device)
    return library


LIBRARY = _register()


@register_flop_formula(torch.ops.fedge.convolve)
def _convolve_flop(x: tuple, weight: tuple, *how: object, out_shape: tuple, **options: object) -> int:
    return 2 * prod(out_shape) * prod(weight[1:])


@register_flop_formula(torch.ops.fedge.propagate)
def _propagate_flop(error: tuple, weight: tuple, *how: object, **options: object) -> int:
    return 2 * prod(error) * prod(weight[1:])


@register_flop_formula(torch.ops.fedge.kernel_gradient)
def _kernel_gradient_flop(error: tuple, x: tuple, *how: object, **options: object) -> int:
    return 2 * prod(error) * x[1] * prod(KERNEL)
