"""NT-Xent, the loss of SimCLR (Chen, Kornblith, Norouzi, Hinton, ICML 2020, arXiv 2002.05709, equation 1).

    z_i = out_i / ||out_i||,   s_ik = z_i . z_k / t
    l_i = -log( exp(s_ij) / sum over k != i of exp(s_ik) )          j: the other view of i's sample

Every other view in the batch is a negative, also those of a sample of the same class: the loss is told no class. With
one sample there is no negative and the loss is 0. Shapes: V views (two a sample), D numbers of a projection.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedge.errors import UserError
from fedge.training.outputs import logits_of
from fedge.training.task import Task


def nt_xent(out_VD: Tensor, partner_V: Tensor, temperature: float) -> Tensor:
    """The loss of each view [V], 0 or more. partner: where each one's other view is. temperature: above 0."""
    return F.cross_entropy(_likeness(out_VD) / temperature, partner_V, reduction="none")


def partners(views: int, device: torch.device | None = None) -> Tensor:
    """Where each view's other is, of a batch of first views with the second ones behind them, in the same order [V]."""
    return (torch.arange(views, device=device) + views // 2) % views


@dataclass(frozen=True)
class NtXent(Task):
    """As a task: a view's target is the place of its other view in the mini-batch, and its nearest is its answer."""

    temperature: float = 0.5

    @property
    def name(self) -> str:
        return "classes"

    def outputs(self, output: object, samples: int) -> Tensor:
        return logits_of(output, samples)

    def check_targets(self, y_B: object, out_BK: Tensor) -> None:
        """UserError unless every view has another one of the mini-batch for its partner."""
        views = len(out_BK)
        if not isinstance(y_B, Tensor) or y_B.shape != (views,) or y_B.is_floating_point():
            raise UserError(f"contrast: partners of {views} views are wanted, a whole number each")
        place_V = torch.arange(views, device=y_B.device)
        if bool(((y_B < 0) | (y_B >= views) | (y_B == place_V)).any()):
            raise UserError(f"contrast: a partner is another of the {views} views, 0 to {views - 1}")

    def loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        return nt_xent(out_BK, y_B, self.temperature)

    def right(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        return _likeness(out_BK).argmax(1) == y_B

    def blank(self, out_BK: Tensor) -> Tensor:
        return partners(len(out_BK), out_BK.device)

    def draw(self, samples: int, columns: int, generator: torch.Generator) -> Tensor:
        """The partners there are: no chance in it."""
        return partners(samples)

    def macs(self, views: int, width: int) -> int:
        """Of the products of all views with one another and of their gradient, in a step."""
        return 3 * views * views * width


def _likeness(out_VD: Tensor) -> Tensor:
    """z_i . z_k [V, V], -inf of a view with itself."""
    z_VD = F.normalize(out_VD, dim=1)
    itself_VV = torch.eye(len(z_VD), dtype=torch.bool, device=z_VD.device)
    return (z_VD @ z_VD.T).masked_fill(itself_VV, -math.inf)
