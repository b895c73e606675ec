"""Pixels or maps of single instances, drawn without bias: between one number (element.py) and a channel (scores.py).

    pixel   delta[b, :, u, v]    one pixel of one instance over all channels
    map     delta[b, j, :, :]    one channel of one instance

    kept with probability   q = min(1, c ||delta of the unit||_2),   then divided by q           E[pruned delta] = delta

with c such that K = keep N of the N units are kept. That is column-row sampling of a matrix product (Adelman, Levy,
Hakimi, Silberstein, "Faster neural network training with approximate tensor operations", NeurIPS 2021), with q from the
error alone; with one number as its unit it is Ye et al.'s rule, c = 1 / tau.

Units are drawn systematically: with one u from [0, 1) for all, those are kept at which u + q_1 + q_2 + ... passes a
whole number. Each is kept with its own q exactly, and K of them in every mini-batch, not only in the mean: memory and
multiply-accumulates are known beforehand. They are summed up in an order that is shuffled once, for neighbours, and an
instance's channels, are much alike: every second one of them would be kept.

Shapes: B instances, C channels, H x W pixels; N units, K kept.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fedge.training.error_map.channels import as_pixels
from fedge.training.torch_private import FakeTensor

ROUNDS = 12
"""Of looking for c; each finds more of the units that are kept for certain."""
LEAST = 1e-280
"""Sum of norms: an error of zeros keeps no unit."""


class Drawn(NamedTuple):
    """Kept units [K], ascending, and 1 / q of each."""

    unit_K: Tensor
    weight_K: Tensor


def pixel_norms(error_BCHW: Tensor) -> Tensor:
    """||delta||_2 of every pixel, [B * H * W]; the error in channels-last order."""
    norm_N: Tensor = torch.linalg.vector_norm(as_pixels(error_BCHW), dim=1)
    return norm_N


def map_norms(error_BCHW: Tensor) -> Tensor:
    """||delta||_2 of every instance's every map, [B * C]."""
    norm_BC: Tensor = torch.linalg.vector_norm(error_BCHW, dim=(2, 3))
    return norm_BC.flatten()


def kept_units(units: int, keep: float) -> int:
    """K: to the nearest, never none."""
    return max(1, int(keep * units + 0.5))


def probabilities(norm_N: Tensor, kept: int) -> Tensor:
    """q = min(1, c norm), [N], in float64; they sum up to `kept`, or to the units that are not zero if fewer."""
    norm_N = norm_N.double()
    certain_N = torch.zeros_like(norm_N, dtype=torch.bool)
    for _ in range(ROUNDS):  # c grows towards its own, never beyond: the sum of the q's is at most `kept`
        rest = norm_N.masked_fill(certain_N, 0.0).sum().clamp(min=LEAST)
        share_N = ((kept - certain_N.sum()) / rest * norm_N).masked_fill_(certain_N, 1.0)
        before_N, certain_N = certain_N, share_N >= 1
        if not isinstance(norm_N, FakeTensor) and torch.equal(before_N, certain_N):
            break
    return share_N.clamp_(max=1.0)


def draw(norm_N: Tensor, kept: int, order_N: Tensor, generator: torch.Generator) -> Drawn:
    """At most `kept` units; on fake tensors, which have shapes only, `kept`. order_N: the units, shuffled."""
    if not isinstance(norm_N, FakeTensor) and not bool(norm_N.sum().isfinite()):
        return Drawn(
            order_N[:kept].sort().values, norm_N.new_full((kept,), math.nan)
        )  # diverged, and to be seen
    share_N = probabilities(norm_N, kept)
    first = torch.rand((), generator=generator, dtype=torch.float64).to(norm_N.device)
    passed_N = share_N.index_select(0, order_N).cumsum(0).add_(first).floor_()
    passes_N = torch.empty_like(norm_N, dtype=torch.bool)
    passes_N[order_N] = passed_N.diff(prepend=passed_N.new_zeros(1)) > 0
    del passed_N
    if isinstance(norm_N, FakeTensor):
        unit_K = torch.arange(kept, device=norm_N.device)
    else:
        unit_K = passes_N.nonzero().flatten()[:kept]
    return Drawn(unit_K, share_N.index_select(0, unit_K).reciprocal().to(norm_N.dtype))


def spread_units(drawn: Drawn, units: int) -> Tensor:
    """1 / q of the kept, 0 of the others, [N]."""
    weight_K = drawn.weight_K
    return weight_K.new_zeros(units).index_copy_(0, drawn.unit_K, weight_K)
