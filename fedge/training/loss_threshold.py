"""T_l, the loss from which an instance counts as worth training on, and which predictions are acted on.

Paper (EIF + EMP, arXiv 2007.03213, equations 1 to 3 and section III): keep where p_H >= 1/2, and

    y_i  = H if loss_i >= T_l else L
    R_TH = 1 / (m n) * sum over the last n mini-batches of I(predicted H) * I(y_i = H)
    T_l <- a1 * T_l  if R_TH >= R_set  else  a2 * T_l          a1 > 1 > a2

n, a1, a2 and the first T_l are not given there; ours are below. R_TH counts the instances that are predicted H *and*
are H, so T_l sinks until nearly every predicted H is an H; how many are kept is left to the network, and it can
settle well above R_set.

Quantile rule (ours, the default) holds the kept share itself. Two running quantiles, one per decision:

    keep where  z_H - z_L >= the (1 - q) quantile of that margin over the last M instances
                q = keep + (keep * seen - kept) / M, within 0 .. 1: an overdraft is paid back over M instances
    T_l =       the (1 - keep) quantile of the *population's* loss, over the last W losses known,
                a kept instance weighing 1 and a dropped one that was looked at with probability r weighing 1 / r

The weights matter: without them T_l is the quantile of the hard instances that the filter itself chose, which rises
until nothing is H.
"""

from typing import Protocol

import torch
from torch import Tensor


class ThresholdRule(Protocol):
    """Which instances are kept, and from which loss on an instance is labelled H; its state is its tensors."""

    tensors: dict[str, Tensor]

    def choose(self, margin_B: Tensor) -> Tensor:
        """Boolean [B]: kept, given z_H - z_L of each instance."""

    def loss_threshold(self) -> float:
        """T_l in nats."""

    def learn(self, loss_N: Tensor, kept_N: Tensor, sampling_weight_N: Tensor, batch_size: int) -> None:
        """Take in the N losses known of a mini-batch, which of them were kept, and 1 / P(known) of each."""


class PaperRule:
    """Equations 1 to 3. `window` is n in mini-batches; `raise_by` a1, `lower_by` a2, `first` T_l at the start in nats."""

    def __init__(
        self,
        keep: float,
        *,
        window: int = 1,
        raise_by: float = 1.005,
        lower_by: float = 0.995,
        first: float = 0.2,
    ) -> None:
        self.keep, self.raise_by, self.lower_by = keep, raise_by, lower_by
        self.tensors = {
            "threshold": torch.tensor(first, dtype=torch.float64),
            "true_high": torch.zeros(
                window, 2, dtype=torch.float64
            ),  # (predicted H and H, instances) per batch
        }

    def choose(self, margin_B: Tensor) -> Tensor:
        return margin_B >= 0

    def loss_threshold(self) -> float:
        return float(self.tensors["threshold"])

    def learn(self, loss_N: Tensor, kept_N: Tensor, sampling_weight_N: Tensor, batch_size: int) -> None:
        true_high = float((kept_N & (loss_N >= self.loss_threshold())).sum())
        latest = torch.tensor([[true_high, batch_size]], dtype=torch.float64)
        self.tensors["true_high"] = torch.cat([self.tensors["true_high"][1:], latest])
        hits, instances = self.tensors["true_high"].sum(0)
        self.tensors["threshold"] *= self.raise_by if hits / instances >= self.keep else self.lower_by


class QuantileRule:
    """Holds the kept share at `keep`; `margins` is M, `losses` is W."""

    def __init__(self, keep: float, *, margins: int = 256, losses: int = 1024) -> None:
        self.keep = keep
        self.tensors = {
            "margin": torch.full((margins,), torch.nan),
            "loss": torch.full((losses,), torch.nan),
            "loss_weight": torch.zeros(losses),
            "overdraft": torch.zeros((), dtype=torch.float64),  # instances kept beyond keep * seen
        }

    def choose(self, margin_B: Tensor) -> Tensor:
        if self.keep == 1:
            return torch.ones(len(margin_B), dtype=torch.bool)
        recent_M = _push(self.tensors["margin"], margin_B)
        self.tensors["margin"] = recent_M
        share = self.keep - float(self.tensors["overdraft"]) / len(recent_M)
        kept_B = margin_B >= torch.quantile(recent_M[~recent_M.isnan()], 1 - min(max(share, 0.0), 1.0))
        if share <= 0:
            kept_B = torch.zeros_like(kept_B)
        self.tensors["overdraft"] += float(kept_B.sum()) - self.keep * len(margin_B)
        return kept_B

    def loss_quantile(self, share: float) -> float:
        """The population's loss below which `share` of the instances lie; 0 before any loss is known."""
        return _weighted_quantile(self.tensors["loss"], self.tensors["loss_weight"], share)

    def loss_threshold(self) -> float:
        return self.loss_quantile(1 - self.keep)

    def learn(self, loss_N: Tensor, kept_N: Tensor, sampling_weight_N: Tensor, batch_size: int) -> None:
        self.tensors["loss"] = _push(self.tensors["loss"], loss_N)
        self.tensors["loss_weight"] = _push(self.tensors["loss_weight"], sampling_weight_N)


def _push(ring: Tensor, new: Tensor) -> Tensor:
    """The last len(ring) of both, oldest first."""
    return torch.cat([ring, new.to(ring.dtype)])[-len(ring) :]


def _weighted_quantile(value_W: Tensor, weight_W: Tensor, share: float) -> float:
    known = weight_W > 0
    if not known.any():
        return 0.0
    value_N, order_N = value_W[known].sort()
    mass_N = weight_W[known][order_N].cumsum(0)
    place = int(torch.searchsorted(mass_N, share * mass_N[-1]))
    return float(value_N[min(place, len(value_N) - 1)])
