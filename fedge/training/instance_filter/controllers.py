"""Which predictions of the early filter are acted on, and T_l, the loss from which an instance is labelled H.

Paper (EIF + EMP, arXiv 2007.03213, section III, equations 1 to 5): keep where p_H >= 1/2; look at (forward only) where

    entropy_i = -sum over H, L of p log p > entropy_threshold,   dropped ones
    y_i  = H if loss_i >= T_l else L
    R_TH = 1 / (m n) * sum over the last n mini-batches of I(predicted H) * I(y_i = H)
    T_l <- a1 * T_l  if R_TH >= R_set  else  a2 * T_l          a1 > 1 > a2

n, a1, a2, the first T_l and the entropy threshold are not given there; ours are below. R_TH counts what is predicted H
*and* is H, so T_l sinks until nearly every predicted H is one; how many are kept is left to the network, and it settles
well above R_set.

Quantile controller (ours, the default). It holds the kept share itself, and explores:

    easy    = share of the population with loss < 0.1 nats
    explore = 1 - (easy - 1/2) / (1 - keep - 1/2), within least_explore .. 1        (1 while easy < 1/2)
    ranked  : the share keep * (1 - explore) with the largest z_H - z_L
    explored: at random among the rest, to make up `keep`
    T_l     = the (1 - keep) quantile of the population's loss over the last W losses known

- Each share is held by a running quantile over M instances with the overdraft paid back (`RunningShare`).
- Population: an explored instance stands for all that it was drawn from, so it weighs 1 / (its probability), a ranked
  one 1. (Where frames repeat, what is drawn is new scenes, so it is their losses that T_l and `easy` tell.) Without
  the weights T_l would be the quantile of the hard instances that the filter itself chose, which rises until nothing
  is H.
- What is explored is trained on as well, so nothing is looked at in vain, and the filter cannot shut itself in.
- Dropping in favour of harder instances pays once what is dropped is learnt. Before, and again when a drifting stream
  brings what is new, hard means odd, and a coin is better: that is what `easy` says. (The ramp is 0.05 wide at
  least.)
- A near-duplicate of instances just seen (near_duplicates.py) is put behind those that are not.

Shapes: B instances on offer, N of known loss, M margins, W losses remembered.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

LEARNT = 0.5
"""Share of easy instances in the population below which nothing is ranked."""
EASY_LOSS = 0.1
"""In nats."""
LOSSES = 384
"""W above."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Boolean [B]: trained on; dropped but looked at, forward only. weight [B]: how many instances one stands for."""

    kept_B: Tensor
    looked_B: Tensor
    weight_B: Tensor


class Controller(Protocol):
    """`tensors` is all its state."""

    tensors: dict[str, Tensor]

    def choose(self, margin_B: Tensor, seen_B: Tensor, generator: torch.Generator) -> Choice:
        """Given z_H - z_L of each instance and how many near-duplicates came just before it."""

    def loss_threshold(self) -> float:
        """T_l in nats."""

    def learn(self, loss_N: Tensor, weight_N: Tensor, kept_N: Tensor, batch_size: int) -> None:
        """Take in the losses known of a mini-batch."""


class PaperController:
    """Equations 1 to 5. window is n in mini-batches, raise_by a1, lower_by a2, first T_l at the start in nats."""

    def __init__(
        self,
        keep: float,
        *,
        entropy_threshold: float = 0.5,
        window: int = 1,
        raise_by: float = 1.005,
        lower_by: float = 0.995,
        first: float = 0.2,
    ) -> None:
        self.keep, self.entropy_threshold = keep, entropy_threshold
        self.raise_by, self.lower_by = raise_by, lower_by
        self.tensors = {
            "threshold": torch.tensor(first, dtype=torch.float64),
            # (predicted H and H, instances) per batch
            "true_high": torch.zeros(window, 2, dtype=torch.float64),
        }

    def choose(self, margin_B: Tensor, seen_B: Tensor, generator: torch.Generator) -> Choice:
        kept_B = margin_B >= 0
        looked_B = ~kept_B & (entropy(margin_B) > self.entropy_threshold)
        # sure that nothing is worth it: look at one, or it stays so for good
        if not (kept_B | looked_B).any():
            looked_B[torch.randint(len(looked_B), (), generator=generator)] = True
        return Choice(kept_B, looked_B, torch.ones(len(margin_B)))

    def loss_threshold(self) -> float:
        return float(self.tensors["threshold"])

    def learn(self, loss_N: Tensor, weight_N: Tensor, kept_N: Tensor, batch_size: int) -> None:
        true_high = float((kept_N & (loss_N >= self.loss_threshold())).sum())
        latest = torch.tensor([[true_high, batch_size]], dtype=torch.float64)
        self.tensors["true_high"] = torch.cat([self.tensors["true_high"][1:], latest])
        hits, instances = self.tensors["true_high"].sum(0)
        self.tensors["threshold"] *= self.raise_by if hits / instances >= self.keep else self.lower_by


class QuantileController:
    """Holds the kept share at `keep`; explores at least the share `least_explore` of what is kept."""

    def __init__(self, keep: float, *, least_explore: float = 0.5) -> None:
        self.keep, self.least_explore = keep, least_explore
        self._ranked, self._explored = RunningShare("ranked"), RunningShare("explored")
        self._own = {"loss": torch.zeros(LOSSES), "loss_weight": torch.zeros(LOSSES)}

    @property
    def tensors(self) -> dict[str, Tensor]:
        return self._own | self._ranked.tensors | self._explored.tensors

    @tensors.setter
    def tensors(self, state: dict[str, Tensor]) -> None:
        for part in (self._own, self._ranked.tensors, self._explored.tensors):
            part.update({name: state[name] for name in part})

    @property
    def explore(self) -> float:
        """Share of the kept instances drawn at random now: 1 at the start, `least_explore` once most is learnt."""
        weight_W = self._own["loss_weight"]
        known = float(weight_W.sum())
        easy = float(weight_W[self._own["loss"] < EASY_LOSS].sum()) / known if known else 0.0
        learnt = (easy - LEARNT) / max(1 - self.keep - LEARNT, 0.05)
        return min(1.0, max(self.least_explore, 1 - learnt))

    def choose(self, margin_B: Tensor, seen_B: Tensor, generator: torch.Generator) -> Choice:
        ranked_share = self.keep * (1 - self.explore)
        # a whole spread of margins back for every near-duplicate before it; one margin has none: a logit then
        spread = float(margin_B.std(correction=0)) if len(margin_B) > 1 else 1.0
        ranked_B = self._ranked.choose(margin_B - seen_B * spread, ranked_share)
        lot_B = torch.rand(len(margin_B), generator=generator) - seen_B
        probability = (self.keep - ranked_share) / (1 - ranked_share)
        explored_B = torch.zeros_like(ranked_B)
        explored_B[~ranked_B] = self._explored.choose(lot_B[~ranked_B], probability)
        weight_B = torch.where(ranked_B, 1.0, 1 / probability)
        return Choice(ranked_B | explored_B, torch.zeros_like(ranked_B), weight_B)

    def loss_threshold(self) -> float:
        return self.loss_quantile(1 - self.keep)

    def loss_quantile(self, share: float) -> float:
        """The population's loss below which `share` of the instances lie; 0 before any loss is known."""
        known = self._own["loss_weight"] > 0
        if not known.any():
            return 0.0
        loss_N, order_N = self._own["loss"][known].sort()
        mass_N = self._own["loss_weight"][known][order_N].cumsum(0)
        place = int(torch.searchsorted(mass_N, share * mass_N[-1]))
        return float(loss_N[min(place, len(loss_N) - 1)])

    def learn(self, loss_N: Tensor, weight_N: Tensor, kept_N: Tensor, batch_size: int) -> None:
        self._own["loss"] = push(self._own["loss"], loss_N)
        self._own["loss_weight"] = push(self._own["loss_weight"], weight_N)


class RunningShare:
    """Chooses a share of instances by score against those before them; in the long run exactly that share.

    The threshold is the (1 - q) quantile of the last `window` scores, these included, with q the share less the
    overdraft (chosen beyond the share so far) spread over the window. So a batch of one works, and a batch in which all
    is worth it may be kept whole. No share, no instance, or nothing but nan: nothing.
    """

    def __init__(self, name: str, window: int = 256) -> None:
        self._scores, self._overdraft = f"{name}_scores", f"{name}_overdraft"
        self.tensors = {
            self._scores: torch.full((window,), torch.nan),
            self._overdraft: torch.zeros((), dtype=torch.float64),
        }

    def choose(self, score_B: Tensor, share: float) -> Tensor:
        if not len(score_B):
            return torch.zeros(0, dtype=torch.bool)
        recent_M = push(self.tensors[self._scores], score_B)
        overdraft = self.tensors[self._overdraft]
        aim = share - float(overdraft) / len(recent_M)
        known_M = recent_M[~recent_M.isnan()]
        if aim > 0 and len(known_M):
            chosen_B = score_B >= torch.quantile(known_M, 1 - min(aim, 1.0))
        else:
            chosen_B = torch.zeros(len(score_B), dtype=torch.bool)
        self.tensors[self._scores] = recent_M
        self.tensors[self._overdraft] = overdraft + float(chosen_B.sum()) - share * len(score_B)
        return chosen_B


def entropy(margin_B: Tensor) -> Tensor:
    """Equation 4 in nats, of the two-class softmax with z_H - z_L = margin: 0 when sure, ln 2 at margin 0."""
    p_B = torch.sigmoid(margin_B.double())
    entropy_B: Tensor = torch.special.entr(p_B) + torch.special.entr(1 - p_B)
    return entropy_B


def push(ring: Tensor, new: Tensor) -> Tensor:
    """The last len(ring) of both, oldest first."""
    return torch.cat([ring, new.to(ring.dtype)])[-len(ring) :]
