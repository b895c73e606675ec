"""Which error maps of a layer are worth keeping: one score per output channel j.

EIF + EMP (arXiv 2007.03213), equation 11, summed over the mini-batch:

    S_j = g1 * ||W_j||_1 + g2 * ||delta_j||_1

W_j is kernel j over all its input channels, delta_j its error map (the gradient at the layer's output). The two norms
differ by orders of magnitude (delta shrinks with the mini-batch), so absolute g's mean nothing; here each is divided by
its mean over the layer and g1 = g2 = 1. ("error" alone is equation 14, the paper's special case g1 = 0.)

A score of your own is a function of (weight_CIJL, error_norm_C, generator), named in a scenario as "mine.py:name"; a
line in fedge.catalog.names makes it a word.
Shapes: C output channels, I input channels of one, J, L a kernel's rows and columns.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fedge.catalog import names
from fedge.catalog.named import Named

Score = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def error(weight_CIJL: Tensor, error_norm_C: Tensor, generator: torch.Generator) -> Tensor:
    """||delta_j||: what the weight's gradient loses with map j (equation 14)."""
    return error_norm_C


def paper(weight_CIJL: Tensor, error_norm_C: Tensor, generator: torch.Generator) -> Tensor:
    """||W_j|| / mean + ||delta_j|| / mean (equation 11)."""
    return _relative(_norm(weight_CIJL)) + _relative(error_norm_C)


def product(weight_CIJL: Tensor, error_norm_C: Tensor, generator: torch.Generator) -> Tensor:
    """||W_j|| * ||delta_j||: bounds what the propagated error W_j * delta_j loses with map j."""
    return _norm(weight_CIJL) * error_norm_C


def random(weight_CIJL: Tensor, error_norm_C: Tensor, generator: torch.Generator) -> Tensor:
    """A coin: the baseline that a score has to beat."""
    return torch.rand(error_norm_C.shape, generator=generator).to(error_norm_C.device)


SCORES: dict[str, Score] = dict(Named[Score](names.SCORES))


def _norm(weight_CIJL: Tensor) -> Tensor:
    return weight_CIJL.abs().sum((1, 2, 3))


def _relative(norm_C: Tensor) -> Tensor:
    """Divided by the layer's mean; a layer of zeros stays zeros."""
    return norm_C / norm_C.mean().clamp(min=torch.finfo(norm_C.dtype).tiny)


def keep_best(score_C: Tensor, kept: int, groups: int = 1) -> Tensor:
    """Indices [kept], ascending, of the best channels; in a grouped convolution every group keeps as many."""
    if groups == 1:
        return score_C.topk(kept).indices.sort().values
    per_group = score_C.reshape(groups, -1).topk(kept // groups, dim=1).indices
    first_G1 = torch.arange(groups, device=score_C.device)[:, None] * (len(score_C) // groups)
    return (per_group + first_G1).flatten().sort().values


def kept_channels(channels: int, keep: float, groups: int = 1) -> int:
    """n' = keep * n to the nearest, never none; the same number in every group."""
    per_group = channels // groups
    return groups * max(1, int(keep * per_group + 0.5))
