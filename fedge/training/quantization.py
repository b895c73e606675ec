"""Quantised training (+Q), simulated in float: numbers are rounded as 8-bit hardware would, products stay float.

Banner, Hubara, Hoffer, Soudry, "Scalable methods for 8-bit training of neural networks", NeurIPS 2018 (1805.11046),
which EIF + EMP (arXiv 2007.03213) uses in its "+Q" rows. For every convolution and linear layer:

    forward              y   = Q8(W) * Q8(x)
    error propagation    dx  = rot(Q8(W)) * Q8(dy)            gradient bifurcation: an 8-bit copy of the error here,
    weight gradient      dW  = Q8(x) * Q16(dy)                a 16-bit one there; both rounded stochastically
    Q_b(v) = lo + step * round((v - lo) / step),   lo = min v,  step = (max v - min v) / (2^b - 1)

Weights are kept in float and updated in float. The rounding passes gradients through unchanged.
Range-BN (optional) takes the spread of a channel from its range instead of its variance:

    sigma = scale * mean over 16 chunks of the B H W values of (max - min),
    scale = 0.5 * 0.35 * (1 + sqrt(pi ln 4)) / sqrt(2 ln N)        N values in a chunk

It saves no time here: the simulation adds work. What it would save is counted apart from MACs, in bit operations: one
product of an a-bit by a b-bit number is a * b of them (float: 32 * 32). The paper does not say how it weighs bits.

What we changed: ranges are those of this tensor, not running averages; a round depends on its data alone.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Self, TypeGuard

import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.counting.dry_run import in_dry_run
from fedge.training.error_map.backward import Rounding
from fedge.training.error_map.batch_norm import next_momentum
from fedge.training.error_map.blocks import computes_as, replace_forward
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.macs import COUNTED, BackwardCost, MacTable
from fedge.training.torch_private import ConvTranspose, parameters_of

Quantised = nn.Conv2d | nn.Linear
RANGE_CHUNKS = 16
_NOT_QUANTISED = (ConvTranspose, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear)


def quantize(value: Tensor, bits: int, generator: torch.Generator | None = None) -> Tensor:
    """To 2^bits even steps between its least and largest element; stochastically with a generator, else to the nearest.

    A constant tensor comes back unchanged. The mean is kept in expectation when stochastic.
    """
    low, high = torch.aminmax(value.detach())
    step = (high - low) / (2**bits - 1)
    if not step > 0:
        return value
    level = (value - low) / step
    if generator is not None:
        level = level + torch.rand(value.shape, generator=generator).to(value.device) - 0.5
    rounded: Tensor = low + step * level.round().clamp(0, 2**bits - 1)
    return rounded


class Quantization:
    """Context manager: inside it, `model`'s Conv2d, Linear and (if asked) BatchNorm2d layers compute quantised.

    bits: 2..16 of weights, activations and propagated errors; weight_gradient_bits: 2..24 of the other error copy.
    range_norm: Range-BN in place of batch norm while training. seed: of the stochastic rounding.
    With error maps pruned too, it is entered by `over(pruner)`, as `train` does. `pruner` is whose error maps are
    rounded, None while it is not entered. Raises UserError where a product of the model would stay unrounded: in other
    layers (Conv1d, attention, ...), and in subclasses with a forward of their own; `train` does so for products outside
    of layers.
    """

    def __init__(
        self,
        model: nn.Module,
        bits: int = 8,
        weight_gradient_bits: int = 16,
        *,
        range_norm: bool = False,
        seed: int = 0,
    ) -> None:
        if not 2 <= bits <= 16:
            raise UserError(f"quantization: bits is {bits}; take 2 to 16 (8 is Banner et al.'s)")
        if not bits <= weight_gradient_bits <= 24:
            raise UserError(
                f"quantization: weight_gradient_bits is {weight_gradient_bits}; take {bits} (bits) to 24"
            )
        for name, layer in model.named_modules():
            if isinstance(layer, COUNTED + _NOT_QUANTISED) and not _quantises(layer):
                raise _unrounded(name, layer)
        self.model = model
        self.bits = bits
        self.weight_gradient_bits = weight_gradient_bits
        self.range_norm = range_norm
        self.pruner: ErrorMapPruner | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self._leave = ExitStack()

    @property
    def entered(self) -> bool:
        """Whether the model computes quantised now."""
        return self.pruner is not None

    @property
    def roundings(self) -> tuple[Rounding, Rounding]:
        """What is done to the error before error propagation and before the weight gradient."""
        narrow, wide = (
            partial(quantize, bits=bits, generator=self.generator)
            for bits in (self.bits, self.weight_gradient_bits)
        )
        return narrow, wide

    def bit_operations(self, macs_forward: int, backward: BackwardCost) -> int:
        """Products weighed by the bits of both factors."""
        narrow, wide = self.bits * self.bits, self.bits * self.weight_gradient_bits
        return (macs_forward + backward.error_propagation) * narrow + backward.weight_gradient * wide

    def require_rounded(self, table: MacTable) -> None:
        """UserError where some of the products counted are not made in a layer that is quantised."""
        layers = dict(self.model.named_modules())
        for counted in table.layers:
            if not _quantises(layers[counted.name]):
                raise _unrounded(counted.name, layers[counted.name])

    @contextmanager
    def over(self, pruner: ErrorMapPruner) -> Iterator[Self]:
        """Both methods at once: only the error maps that `pruner`, of the same model, keeps are rounded."""
        if self.entered:
            raise UserError("quantization: attached already; leave it before entering it again")
        if pruner.model is not self.model:
            raise UserError("quantization: these error maps are of another model: make both for the same one")
        with ExitStack() as stack:
            if not pruner.entered:
                stack.enter_context(pruner)
            self.pruner, pruner.roundings = pruner, self.roundings
            stack.callback(setattr, self, "pruner", None)
            stack.callback(setattr, pruner, "roundings", None)
            for layer in self.model.modules():
                if _quantises(layer):
                    stack.callback(replace_forward(layer, partial(self._layer, layer, layer.forward)))
                elif self.range_norm and computes_as(layer, nn.BatchNorm2d):
                    stack.callback(replace_forward(layer, partial(_range_norm, layer, layer.forward)))
            yield self

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.over(ErrorMapPruner(self.model, keep=1)))
            self._leave = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._leave.close()

    def _layer(self, layer: Quantised, inner: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The layer's own forward on rounded inputs and weights; its parameter stays in float."""
        if in_dry_run():
            return inner(x)
        # seen before the parameter of that name, by whatever `inner` is
        layer.__dict__["weight"] = straight_through(layer.weight, self.bits)
        try:
            return inner(straight_through(x, self.bits))
        finally:
            del layer.__dict__["weight"]


def _unrounded(name: str, layer: nn.Module) -> UserError:
    return UserError(
        f"quantization: layer '{name}' is a {type(layer).__name__}, whose products are not quantised; those of "
        "Conv2d and Linear with PyTorch's own forward and weight are: build the model from these, or train unquantised"
    )


def _quantises(layer: nn.Module) -> TypeGuard[Quantised]:
    """A parametrised weight is computed anew at every use, where no rounded one can stand in for it."""
    own_forward = computes_as(layer, nn.Conv2d) or computes_as(layer, nn.Linear)
    return own_forward and "weight" in parameters_of(layer)


def straight_through(value: Tensor, bits: int) -> Tensor:
    """Rounded forward, as if not rounded backward."""
    return value + (quantize(value.detach(), bits) - value).detach()


def _range_norm(layer: nn.BatchNorm2d, batch_norm: Callable[[Tensor], Tensor], y_BCHW: Tensor) -> Tensor:
    """Range-BN in training; in evaluation, or with fewer values than chunks, the layer's own forward."""
    channels = y_BCHW.shape[1]
    values_CN = y_BCHW.transpose(0, 1).reshape(channels, -1)
    per_chunk = values_CN.shape[1] // RANGE_CHUNKS
    if not layer.training or per_chunk < 2 or in_dry_run():
        return batch_norm(y_BCHW)
    chunks_CKN = values_CN[:, : per_chunk * RANGE_CHUNKS].reshape(channels, RANGE_CHUNKS, per_chunk)
    spread_C = (chunks_CKN.amax(2) - chunks_CKN.amin(2)).mean(1)
    scale = 0.5 * 0.35 * (1 + math.sqrt(math.pi * math.log(4))) / math.sqrt(2 * math.log(per_chunk))
    mean_C, sigma_C = values_CN.mean(1), spread_C * scale
    _track(layer, mean_C.detach(), sigma_C.detach().square())
    normed_BCHW = (y_BCHW - mean_C[:, None, None]) / (sigma_C + layer.eps)[:, None, None]
    if layer.weight is None:
        return normed_BCHW
    return normed_BCHW * layer.weight[:, None, None] + layer.bias[:, None, None]


def _track(layer: nn.BatchNorm2d, mean_C: Tensor, variance_C: Tensor) -> None:
    """Running statistics as batch norm keeps them."""
    if layer.running_mean is None or layer.running_var is None:
        return
    momentum = next_momentum(layer)
    layer.running_mean.lerp_(mean_C, momentum)
    layer.running_var.lerp_(variance_C, momentum)
