"""Activation-gradient pruning: a small number of a gradient becomes zero, or the threshold, at random.

Ye, Dai, Luo, Guo, Qi, Yang, Chen, "Accelerating CNN training by pruning activation gradients", ECCV 2020 (arXiv
1908.00173); a reconstruction from its abstract and others' code. Per layer and mini-batch, g at a convolution's output:

    |g| >= tau      g
    |g| <  tau      sign(g) tau   with probability |g| / tau,   else 0                      so that  E[pruned g] = g

Both backward products read the pruned numbers; the forward pass stays as it is. The backward pass is linear in g, so
every weight's gradient keeps its mean. tau: threshold.py.

Which numbers stay has no pattern, and dense kernels multiply a zero as they multiply any number: what is saved is
counted, for hardware that skips zeros, and *not* saved by the clock.
"""

import torch
from torch import Tensor


def prune_elements(
    error: Tensor, magnitude: Tensor, tau: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The pruned gradient, of the error's shape and order in memory; and how many of its numbers are not zero.

    magnitude: |error|, used up. A number that is not finite stays so.
    """
    # Two buffers in all: a gradient is as large as a layer's output. A product with 0 or 1 is the fast way to choose.
    # Chances of 16 bits would be too coarse for small numbers.
    exact = torch.promote_types(error.dtype, torch.float32)
    limit = torch.empty_like(error, dtype=exact, device=generator.device).uniform_(generator=generator)
    limit = limit.to(error.device)
    stays = torch.gt(magnitude, limit.mul_(tau), out=limit)
    # Sums of ones: exact in float32 for a row of up to 2^24, and far faster than count_nonzero.
    left = stays.sum(tuple(range(1, stays.dim()))).sum(dtype=torch.float64)
    return magnitude.clamp_(min=tau).copysign_(error).mul_(stays), left
