"""Answers among some of the classes: those that a client has training samples of.

    p(k | x) = exp(z_k) / sum over own j of exp(z_j)        for an own class k; 0 for every other

Loss, filter, ranking and answers all go by it, so that a step spends nothing on classes that the client does not have.
It is the cheapest thing that a device can do with its data (told, in every table, is it without any training), and it
has its price: a sample of a class never seen before is answered wrong, whatever the network makes of it.

Shapes: B samples, K classes, O own classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedge.training.task import Wrapped


@dataclass(frozen=True)
class Among(Wrapped):
    """`task`, which asks for classes, with answers among `classes` alone (each 0 .. K - 1, in rising order)."""

    classes: tuple[int, ...]

    def loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        """Infinite for a target that is none of the classes."""
        out_BO, place_B = self._narrowed(out_BK, y_B)
        strange_B = place_B < 0
        loss_B = self.task.loss(out_BO, place_B.clamp(min=0))
        return loss_B.masked_fill(strange_B.flatten(1).any(1) if strange_B.dim() > 1 else strange_B, math.inf)

    def mean_loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        out_BO, place_B = self._narrowed(out_BK, y_B)
        if bool((place_B < 0).any()):
            return self.loss(out_BK, y_B).mean()
        return self.task.mean_loss(out_BO, place_B)

    def right(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        out_BO, place_B = self._narrowed(out_BK, y_B)
        return self.task.right(out_BO, place_B)

    def blank(self, out_BK: Tensor) -> Tensor:
        return torch.full_like(self.task.blank(out_BK), self.classes[0])

    def draw(self, samples: int, columns: int, generator: torch.Generator) -> Tensor:
        place_B = torch.randint(0, len(self.classes), (samples,), generator=generator)
        return torch.tensor(self.classes)[place_B]

    def _narrowed(self, out_BK: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of the classes, and where among these each target is; -1: nowhere."""
        own_O = torch.tensor(self.classes, device=out_BK.device)
        place_K = torch.full((out_BK.shape[1],), -1, dtype=torch.long, device=out_BK.device)
        place_K[own_O] = torch.arange(len(self.classes), device=out_BK.device)
        return out_BK.index_select(1, own_O), place_K[y_B.long()]
