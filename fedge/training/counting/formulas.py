"""Multiply-accumulates (MACs) of one operator, from the shapes that it gets.

torch's own table of FLOPs (torch.utils.flop_counter, 2 per MAC) knows matrix products and convolutions; what it lacks
or has wrong is here. An FFT of n points is charged 2 n log2 n, half of that for real numbers. Operators that work
element by element (norms, activations, pooling) cost 0, as they do for torch's FlopCounterMode. One that makes
products in a number not known here is refused: `torch.utils.flop_counter.register_flop_formula` makes it known.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from fedge.errors import UserError
from fedge.training.torch_private import operator_of

aten = torch.ops.aten


def operator_macs(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """MACs of one call; UserError where its products are of unknown number."""
    operator = operator_of(func)
    if (own := _OWN.get(operator)) is not None:
        return own(result, *args, **kwargs)
    if (torchs := flop_registry.get(operator)) is not None:
        return int(torchs(*args, **kwargs, out_val=result)) // 2
    if _is_unknown(func):
        raise UserError(
            f"the network runs the operator {func}, whose multiply-accumulates are not known here: tell them by "
            "torch.utils.flop_counter.register_flop_formula, or build the network without it"
        )
    return 0


def _is_unknown(func: Any) -> bool:
    namespace, _, name = str(func).partition(".")
    if namespace == "torchvision":
        return name.startswith(("deform", "_deform"))
    if namespace != "aten":
        return namespace not in _HARMLESS
    return name.startswith(_WITH_PRODUCTS) and not name.startswith(_WITHOUT_PRODUCTS)


_HARMLESS = ("prim", "prims", "profiler", "debugprims", "rngprims", "_c10d_functional", "inductor")
_WITH_PRODUCTS = (
    "linalg_", "_linalg_", "cholesky", "triangular_solve", "lu_", "_lu_", "ormqr", "geqrf", "orgqr", "matrix_exp",
    "lstm", "gru", "rnn_", "_cudnn_", "cudnn_", "miopen_", "mkldnn_conv", "mkldnn_linear", "mkldnn_rnn", "mps_",
    "conv", "_conv", "slow_conv", "_slow_conv", "thnn_conv", "quantized_", "_weight_int", "_mixed_dtypes",
    "_grouped_mm", "_scaled_dot_product", "_flash_attention", "_efficient_attention", "_transformer",
    "_native_multi_head", "_triton", "_sparse_mm", "_sparse_addmm", "sparse_sampled", "hspmm", "sspaddmm", "_cslt",
    "_nnpack", "_int_mm", "matmul", "linear", "_nested_tensor_softmax", "_scaled_grouped",
)  # fmt: skip
_WITHOUT_PRODUCTS = (
    "linalg_vector_norm", "linalg_cross", "linalg_diagonal", "_linalg_check", "lu_unpack", "_cudnn_init_dropout",
    "cudnn_is_acceptable", "convert", "_convert_indices", "cudnn_batch_norm", "miopen_batch_norm", "_conj",
)  # fmt: skip


def _convolution_backward(
    result: Any, dy: Tensor, x: Tensor, weight: Tensor, _bias: Any, _stride: Any, _padding: Any, _dilation: Any,
    transposed: bool, _output_padding: Any, _groups: int, mask: list[bool], **_: Any,
) -> int:  # fmt: skip
    """Either gradient costs what the forward pass did. (torch charges a weight gradient in g groups g times.)"""
    maps = x if transposed else dy
    return sum(mask[:2]) * len(maps) * math.prod(maps.shape[2:]) * weight.numel()


def _attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, int]:
    """Of the scores, and of the values weighed by them. [..., L, E], [..., S, E], [..., S, F]."""
    pairs = math.prod(q.shape[:-1]) * k.shape[-2]
    return pairs * q.shape[-1], pairs * v.shape[-1]


def _flash(result: Any, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    return sum(_attention(q, k, v))


def _flash_backward(result: Any, dy: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    """The scores again, their gradient's two products, and the values' two."""
    scores, values = _attention(q, k, v)
    return 3 * scores + 2 * values


def _recurrent(result: Any, x_TBF: Tensor, weight_ih: Tensor, weight_hh: Tensor, *_: Any, **__: Any) -> int:
    return x_TBF[..., 0].numel() * (weight_ih.numel() + weight_hh.numel())


def _recurrent_backward(
    result: Any, x_TBF: Tensor, weight_ih: Tensor, weight_hh: Tensor, *_: Any, **__: Any
) -> int:
    """Without the gradient of an input that needs none, which only some processors' kernels make."""
    steps = x_TBF[..., 0].numel()
    return steps * (weight_ih.numel() * (1 + x_TBF.requires_grad) + 2 * weight_hh.numel())


def _cudnn_recurrent(result: Any, x: Tensor, weights: list[Tensor], *_: Any, **__: Any) -> int:
    return x[..., 0].numel() * sum(weight.numel() for weight in weights if weight.dim() == 2)


def _cudnn_recurrent_backward(result: Any, x: Tensor, weights: list[Tensor], *_: Any, **__: Any) -> int:
    return 2 * _cudnn_recurrent(result, x, weights)


def _elements_of(position: int) -> Callable[..., int]:
    """As many products as the argument at `position` has numbers: a matrix times a vector, a dot product."""
    return lambda result, *args, **_: args[position].numel()


def _batched_sum(result: Any, _: Tensor, a_BNM: Tensor, b_BMP: Tensor, **__: Any) -> int:
    return a_BNM.numel() * b_BMP.shape[-1]


def _matrices(a: int, b: int) -> Callable[..., int]:
    return lambda result, *args, **_: args[a].numel() * args[b].shape[-1]


def _linear(result: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return x.numel() * len(weight)


def _trilinear(
    result: Any,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    expand_a: Any,
    expand_b: Any,
    expand_c: Any,
    *_: Any,
    **__: Any,
) -> int:
    """Of nn.Bilinear: two products for each combination of the three factors' indices."""
    shape: list[int] = []
    for factor, expanded in ((a, expand_a), (b, expand_b), (c, expand_c)):
        for axis in sorted(expanded):
            factor = factor.unsqueeze(axis)
        shape = list(factor.shape) if not shape else [max(p) for p in zip(shape, factor.shape, strict=True)]
    return 2 * math.prod(shape)


def _distances(result: Any, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    return a.numel() * b.shape[-2]


def _distances_backward(result: Any, dy: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    return a.numel() * b.shape[-2]


def _fourier(real: bool) -> Callable[..., int]:
    def macs(result: Tensor, x: Tensor, axes: list[int], *_: Any, **__: Any) -> int:
        largest = max(x, result, key=Tensor.numel)
        points = math.prod(largest.shape[axis] for axis in axes)
        return int(largest.numel() * math.log2(max(points, 1))) * (1 if real else 2)

    return macs


_OWN: dict[Any, Callable[..., int]] = {
    aten.convolution_backward: _convolution_backward,
    aten._scaled_dot_product_flash_attention_for_cpu: _flash,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _flash_backward,
    aten.mkldnn_rnn_layer: _recurrent,
    aten.mkldnn_rnn_layer_backward: _recurrent_backward,
    aten._cudnn_rnn: _cudnn_recurrent,
    aten._cudnn_rnn_backward: _cudnn_recurrent_backward,
    aten.mv: _elements_of(0),
    aten.addmv: _elements_of(1),
    aten.addmv_: _elements_of(1),
    aten.dot: _elements_of(0),
    aten.vdot: _elements_of(0),
    aten.addmm_: _matrices(1, 2),
    aten.baddbmm_: _matrices(1, 2),
    aten.addbmm: _batched_sum,
    aten.addbmm_: _batched_sum,
    aten._addmm_activation: _matrices(1, 2),
    aten._int_mm: _matrices(0, 1),
    aten.linear: _linear,
    aten._trilinear: _trilinear,
    aten._cdist_forward: _distances,
    aten._cdist_backward: _distances_backward,
    aten._fft_c2c: _fourier(real=False),
    aten._fft_r2c: _fourier(real=True),
    aten._fft_c2r: _fourier(real=True),
}
