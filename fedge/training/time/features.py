"""A training step in numbers that its time may depend on.

`by_width`: eleven sums, each of which a processor could do at a rate of its own. `of_paper`: the 56 features of
perf4sight (Rajagopal and Bouganis, arXiv 2108.05580), reconstructed from published facts: per convolution, what its
three products would need as matrix products over im2col columns, as FFTs and as Winograd transforms, summed over
convolutions.

In both a product counts as far as it is made: backward products times `StepShape.keep`, none of a frozen layer's
weight, none of the error in front of the first layer.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedge.training.time.shape import LayerShape, StepShape

Features = NDArray[np.float64]

LANES = 16
"""Numbers in a processor's vector, which the channels of a product fill up."""
BY_WIDTH = (
    "step",
    "operator",
    "trained parameter",
    "element written",
    "map number of a layer",
    "product",
    "product over width",
    "product in full vectors",
    "product of a grouped layer",
    "convolution ranked",
    "map number ranked",
)
"""What each of the numbers counts."""


def by_width(step: StepShape) -> Features:
    """[11], in the order of BY_WIDTH.

    width: a layer's narrower side, min(Ci / groups, Co). In full vectors: the product with Ci and Co rounded up to
    LANES. Ranked: what error-map pruning looks at, 0 without it.
    """
    layers, products = step.layers, [step.products(layer) for layer in step.layers]
    ranked = [layer for layer in layers if layer.convolution] if step.keep < 1 else []
    return np.array(
        [
            1.0,
            step.operators,
            step.trained,
            step.batch * step.elements,
            step.batch * sum(layer.maps for layer in layers),
            sum(products) + step.batch * step.loose,
            sum(macs / layer.width for macs, layer in zip(products, layers, strict=True)),
            sum(macs * _filled(layer) for macs, layer in zip(products, layers, strict=True)),
            sum(macs for macs, layer in zip(products, layers, strict=True) if layer.groups > 1),
            sum(layer.calls for layer in ranked),
            step.batch * sum(layer.calls * layer.out_channels * layer.written for layer in ranked),
        ]
    )


def _filled(layer: LayerShape) -> float:
    """Vectors' numbers per number of a product; 0 for a grouped layer, which goes by itself."""
    if layer.groups > 1:
        return 0.0
    sides = (layer.in_channels, layer.out_channels)
    return math.prod(math.ceil(side / LANES) * LANES / side for side in sides)


def of_paper(step: StepShape) -> Features:
    """[56]; zeros for a network without convolutions."""
    found = [_of_convolution(layer, step) for layer in step.layers if layer.convolution]
    return np.sum(found, axis=0) if found else np.zeros(PAPER)


def _of_convolution(layer: LayerShape, step: StepShape) -> Features:
    sides = _Sides(layer, step)
    groups = (_tensors, _columns, _products, _fft_sizes, _fft_products)
    numbers = [number for group in groups for number in group(sides)]
    for tile, filter_side in ((4, 3), (3, 2)):
        numbers += [*_winograd_sizes(sides, tile, filter_side), *_winograd_products(sides, tile, filter_side)]
    return layer.calls * np.array(numbers)


class _Sides:
    """One convolution in the paper's letters. `error`, `gradient`: shares of those two products that are made."""

    def __init__(self, layer: LayerShape, step: StepShape) -> None:
        self.B = step.batch
        self.Ci, self.Co = layer.in_channels, layer.out_channels
        self.e = layer.in_channels / layer.groups
        self.k = math.sqrt(layer.kernel)
        self.p, self.q = math.sqrt(layer.read), math.sqrt(layer.written)
        forward = max(1, layer.forward)
        self.error = step.keep * layer.error_propagation / forward
        self.gradient = step.keep * layer.weight_gradient / forward


def _tensors(s: _Sides) -> list[float]:
    weights = s.Co * s.e * s.k**2
    gradients = s.gradient * s.B * weights
    read, written = (1 + s.error) * s.B * s.Ci * s.p**2, 2 * s.B * s.Co * s.q**2
    return [weights, gradients, read, written, weights + gradients + read + written]


def _columns(s: _Sides) -> list[float]:
    places, places_back = s.B * s.q**2, s.B * s.p**2
    forward = places * s.k**2 * s.Ci
    error = s.error * places_back * s.k**2 * s.Ci
    gradient = s.gradient * places * s.k**2 * s.e
    total = forward + error + gradient
    return [places, forward, places_back, error, gradient, total, 2 * places + places_back]


def _products(s: _Sides) -> list[float]:
    forward = s.B * s.Co * s.q**2 * s.k**2 * s.e
    error = s.error * s.B * s.Ci * s.p**2 * s.k**2 * s.Co
    return [forward, error, (1 + s.gradient) * forward + error]


def _fft_sizes(s: _Sides) -> list[float]:
    read, written = s.p * (1 + s.p), s.q * (1 + s.q)
    kernels, maps, sums = read * s.Co * s.e, read * s.B * s.Ci, read * s.B * s.Co
    kernels_back, errors = s.error * written * s.Co * s.e, s.error * written * s.B * s.Co
    pairs = [kernels + maps, kernels_back + errors, s.gradient * (maps + sums)]
    return [kernels, maps, sums, kernels_back, errors, *pairs, sum(pairs)]


def _fft_products(s: _Sides) -> list[float]:
    transformed = s.B * s.Ci + s.B * s.Co + s.Co * s.e

    def products(side: float, logarithm: float) -> float:
        return side**2 * logarithm * transformed + s.B * s.Co * s.Ci * side**2

    of_read, of_written = _log2(s.p), _log2(s.q)
    three = [
        products(s.p, of_read),
        s.error * products(s.q, of_written),
        s.gradient * products(s.p, 2 * of_read),
    ]
    return [*three, sum(three)]


def _winograd_sizes(s: _Sides, tile: int, filter_side: int) -> list[float]:
    area = (tile + filter_side - 1) ** 2
    tiles, tiles_back = math.ceil(s.p / tile) ** 2, math.ceil(s.q / tile) ** 2
    return _three_and_sums(
        3 * s.B * s.Co * area * tiles,
        s.error * 3 * s.B * s.Ci * area * tiles_back,
        s.gradient * 3 * s.B * s.Co * s.e * area * tiles,
    )


def _winograd_products(s: _Sides, tile: int, filter_side: int) -> list[float]:
    area = (tile + filter_side - 1) ** 2
    tiles, tiles_back = math.ceil(s.p / tile) ** 2, math.ceil(s.q / tile) ** 2
    kernels, maps = math.ceil(s.k / filter_side) ** 2, math.ceil(s.q / filter_side) ** 2
    return _three_and_sums(
        s.B * s.Co * s.e * tiles * kernels * area,
        s.error * s.B * s.Ci * s.Co * tiles_back * kernels * area,
        s.gradient * s.B * s.Co * s.e * tiles * maps * area,
    )


def _three_and_sums(forward: float, error: float, gradient: float) -> list[float]:
    pairs = [forward + error, forward + gradient, error + gradient]
    return [forward, error, gradient, *pairs, forward + error + gradient]


def _log2(side: float) -> float:
    return math.log2(side) if side > 1 else 0.0


PAPER = 56
"""How many features `of_paper` has."""
