"""A score of error maps: which of a layer's channels are worth propagating backward.

[training.error_maps]
keep = 0.5
score = "mine.py:by_weight"
"""

from torch import Generator, Tensor


def by_weight(weight_CIJL: Tensor, error_norm_C: Tensor, generator: Generator) -> Tensor:
    """One score per output channel [C], the largest are kept: the error map's norm times its kernel's.

    weight_CIJL: C kernels over I channels. error_norm_C: L1 norms of the error maps. generator: for random draws.
    """
    return weight_CIJL.abs().sum((1, 2, 3)) * error_norm_C
