"""Below which threshold tau a number of an activation's gradient is left to chance: three ways to find it.

    normal      tau = Phi^-1((1 + p) / 2) sigma,   sigma = sqrt(pi / 2) mean |g|                   g ~ N(0, sigma^2)
    lognormal   the tau of   Z = Phi(z) - exp(mu + s^2 / 2) / tau Phi(z - s),   z = (ln tau - mu) / s
                                                                                             ln |g| ~ N(mu, s^2)
    sampled     the tau of   sum over i of min(1, |g_i| / tau) = keep n,   over a sample of n of the g themselves

`normal` is Ye et al.'s (ECCV 2020, arXiv 1908.00173), its p the share of numbers *below* tau, and not the share that
becomes zero: of those below, many are raised to tau (element.py). For a normal g, with t = tau / sigma, there stay

    non-zeros = (1 - p) + (2 / t) (phi(0) - phi(t)):     46 % at p = 0.9, and 24 % at p = 0.999.

The other two are solved for the share that stays, which is what a user can count on: Z = 1 - keep. The lognormal's
tails are nearer to those of real gradients (Chmiel et al., ICLR 2021, arXiv 2006.08173); `sampled` supposes no
distribution.

A layer's tau is predicted: the mean of its last few mini-batches' own, first in, first out, so that a device need not
go through a gradient twice. A tau that is off costs no bias, only zeros.
"""

import math
from collections import deque
from collections.abc import Callable
from statistics import NormalDist

import torch
from torch import Tensor

from fedge.errors import UserError
from fedge.training.torch_private import FakeTensor

THRESHOLDS = ("sampled", "lognormal", "normal")
MEMORY = 5
"""Mini-batches of which the thresholds' mean is taken. The paper's number is not known."""
SAMPLE = 1 << 12
"""Numbers of a gradient that a threshold is solved on: the share that stays is then known to 0.8 %, and in the mean of
five mini-batches to half of that."""
ROOM = 8
"""Tensors as long as the sample that are held while it is solved, at most."""
_UNIT = NormalDist()

Solve = Callable[[Tensor, float], float]
"""(|g| of any shape, share) -> tau. share: of numbers to stay; of `normal`, p."""


def normal(magnitude: Tensor, target: float) -> float:
    """The paper's, 0 <= target = p < 1."""
    sigma = math.sqrt(math.pi / 2) * float(magnitude.mean())
    return _UNIT.inv_cdf((1 + target) / 2) * sigma


def density_of_normal(target: float) -> float:
    """The share of numbers of a normal gradient that are not zero after pruning at p = target, 0 <= target < 1."""
    if target == 0:
        return 1.0
    t = _UNIT.inv_cdf((1 + target) / 2)
    return (1 - target) + 2 / t * (_UNIT.pdf(0) - _UNIT.pdf(t))


def lognormal(magnitude: Tensor, keep: float) -> float:
    """So that `keep` of the numbers stay, 0 < keep < 1, if those that are not zero already are lognormal."""
    sample_N = _sample(magnitude)
    log_N = sample_N[sample_N > 0].double().log()
    if keep * len(sample_N) >= len(log_N):
        return 0.0  # fewer are left than are asked for
    mu, s = float(log_N.mean()), float(log_N.std(correction=0))
    zeros = 1 - keep * len(sample_N) / len(log_N)  # among those that are not zero already
    if not (math.isfinite(mu) and s > 0):
        return math.exp(mu) / (1 - zeros)  # all alike: each stays with probability exp(mu) / tau
    low, high = mu - 40 * s, mu + s * s + 40 * s - math.log(1 - zeros)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if lognormal_zeros(middle, mu, s) < zeros else (low, middle)
    return math.exp(high)


def lognormal_zeros(log_tau: float, mu: float, s: float) -> float:
    """The share of zeros after pruning at tau, where ln|g| ~ N(mu, s^2)."""
    z = (log_tau - mu) / s
    return _UNIT.cdf(z) - math.exp(mu + s * s / 2 - log_tau) * _UNIT.cdf(z - s)


def sampled(magnitude: Tensor, keep: float) -> float:
    """So that `keep` of the sample's numbers stay in the mean, 0 < keep < 1.

    With the s largest above tau, tau = (sum of the others) / (keep n - s); s is the least that is so.
    """
    falling_N = _sample(magnitude).double().sort(descending=True).values
    wanted = keep * len(falling_N)
    above_S = torch.arange(min(math.ceil(wanted), len(falling_N)), device=falling_N.device)
    others_S = (falling_N.flip(0).cumsum(0).flip(0))[: len(above_S)]
    tau_S = others_S / (wanted - above_S)
    fits_S = falling_N[: len(above_S)] <= tau_S
    return float(tau_S[int(fits_S.int().argmax())]) if bool(fits_S.any()) else 0.0


def _sample(magnitude: Tensor) -> Tensor:
    """Every so manieth number, the step odd, so that channels or columns in powers of two do not fall into it."""
    flat_N = magnitude.flatten() if magnitude.dim() != 4 else magnitude.permute(0, 2, 3, 1).reshape(-1)
    return flat_N[:: flat_N.numel() // SAMPLE | 1]


SOLVERS: dict[str, Solve] = {"sampled": sampled, "lognormal": lognormal, "normal": normal}


class Predicted:
    """Each layer's tau from its last mini-batches; of the first, its own."""

    def __init__(self, how: str) -> None:
        if how not in SOLVERS:
            raise UserError(f"error maps: threshold is '{how}'; take one of {', '.join(THRESHOLDS)}")
        self._solve = SOLVERS[how]
        self._last: dict[str, deque[float]] = {}

    def __call__(self, layer: str, magnitude: Tensor, share: float) -> float:
        """By which this mini-batch's numbers are pruned; its own tau joins the mean of the next ones."""
        if isinstance(magnitude, FakeTensor):
            torch.empty(ROOM, len(_sample(magnitude)), dtype=torch.float64)  # for the estimate of memory
            return 1.0
        last = self._last.setdefault(layer, deque(maxlen=MEMORY))
        own = self._solve(magnitude, share)
        tau = sum(last) / len(last) if last else own
        last.append(own)
        return tau
