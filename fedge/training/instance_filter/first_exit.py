"""Early exits as an instance filter: those that the first exit is sure of are not trained on.

    kept = the ceil(keep B) instances of least max_c softmax(exit_1(x))_c

The network runs as far as its first exit on every instance, in evaluation mode, and again on those kept: with s the
share of a training step that this takes, the cost is s + keep of training on all. Ours, of no paper: PersEPhonEE
(arXiv 2102.01393) drops nothing. Shapes: B instances on offer, K kept, C classes.
"""

import math
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.instance_filter.base import Filter, MiniBatch, Selection
from fedge.training.macs import count_forward, evaluating


@runtime_checkable
class HasExits(Protocol):
    """What the filter needs of a network with exits."""

    def at_first_exit(self, x_BCHW: Tensor) -> Tensor:
        """Logits of the first exit [B, C]; nothing behind it runs."""

    def sure(self, logits_BC: Tensor) -> Tensor:
        """How sure an exit is of each instance [B], 0..1."""


class _Look(nn.Module):
    """A network as far as its first exit."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return cast(HasExits, self.network).at_first_exit(x_BCHW)


class FirstExitFilter(Filter):
    """Keeps the share `keep` of each mini-batch, rounded up; keep = 1: all, at the price of looking.

    UserError where the network has no exits (`with_exits`).
    """

    def __init__(self, keep: float, seed: int = 0) -> None:
        super().__init__(keep, seed)
        self._look: tuple[nn.Module, int] | None = None  # the network, and the MACs of a look at one instance

    def select(self, batch: MiniBatch) -> Selection:
        model = batch.model
        if not isinstance(model, HasExits):
            raise UserError(
                "instance filter 'first_exit' goes by how sure the first exit is, and the network has none: set "
                "training.exits, or take another filter"
            )
        with evaluating(batch.model), torch.no_grad():
            sure_B = model.sure(model.at_first_exit(batch.x_BCHW))
        self.macs += len(sure_B) * self._macs_of_look(batch)
        kept = math.ceil(self.keep * len(sure_B))
        return sure_B.argsort(stable=True)[:kept].sort().values, None

    def _macs_of_look(self, batch: MiniBatch) -> int:
        if self._look is None or self._look[0] is not batch.model:
            shape = tuple(batch.x_BCHW.shape[1:])
            self._look = batch.model, count_forward(_Look(batch.model), shape).forward
        return self._look[1]
