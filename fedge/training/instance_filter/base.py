"""What a filter of instances is: a mini-batch on offer, the protocol, and what all filters share.

A filter is asked before the main network runs (`select`) and told the kept instances' losses after (`learn`).
It may look at more losses of the main network through `MiniBatch.look`: forward only, norms on their running
statistics, and counted.

A filter of your own is a class with the members of `InstanceFilter`: `training.instance_filter.kind = "mine.py:Every"`,
or a line in fedge.catalog.names for a word:

    class Every(Filter):                                # keeps every second instance
        def select(self, batch):
            return torch.arange(0, len(batch.y_B), 2), None

Shapes: B instances in the mini-batch, K kept, N looked at.
"""

from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.macs import evaluating
from fedge.training.norms import norms_for_one
from fedge.training.task import Classes, Task

Selection = tuple[Tensor, Tensor | None]


class MiniBatch:
    """The instances on offer, and forward passes of the main network on any of them. task: whose losses are told."""

    def __init__(
        self,
        x_BCHW: Tensor,
        y_B: Tensor,
        model: nn.Module,
        task: Task = Classes(),  # noqa: B008 - it has no state
    ) -> None:
        self.x_BCHW = x_BCHW
        self.y_B = y_B
        self.task = task
        self.looked_at = 0
        self.model = model

    def look(self, index_N: Tensor) -> Tensor:
        """Losses of the main network on these instances, forward only; each instance looked at is counted."""
        self.looked_at += len(index_N)
        if not len(index_N):
            return torch.empty(0, device=self.x_BCHW.device)
        with evaluating(self.model), torch.no_grad():
            with norms_for_one(self.model) if len(index_N) == 1 else nullcontext():
                out_NK = self.task.outputs(self.model(self.x_BCHW[index_N]), len(index_N))
            y_N = self.y_B[index_N]
            self.task.check_targets(y_N, out_NK)
            return self.task.loss(out_NK, y_N)


class InstanceFilter(Protocol):
    """What `fedge.training.loop.train` needs of a filter; its state is tensors only, so that a device can keep it."""

    macs: int
    """MACs of the filter's own network since it was made, forward and backward."""

    def select(self, batch: MiniBatch) -> Selection:
        """Indices to train on, ascending (none is allowed), and their weights in the loss (None: equal)."""

    def step_length(self, kept: int, offered: int) -> float:
        """Factor on the gradient of a step on `kept` of `offered` instances; 1 is SGD's own."""

    def learn(self, batch: MiniBatch, kept_K: Tensor, loss_K: Tensor) -> None:
        """Take in the kept instances' training losses; called after every update, also when none was kept."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that the filter's future depends on."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`, as if never interrupted."""


class Filter:
    """Base of the filters: keeps a share `keep` in 0 < keep <= 1, draws from its own generator.

    A subclass writes `select`; it writes `learn` if it learns, and names what it learned in `tensors`.
    """

    tensors: tuple[str, ...] = ()
    """Names of the tensor attributes that make up the state besides the generator."""

    def __init__(self, keep: float, seed: int = 0) -> None:
        if not 0 < keep <= 1:
            raise UserError(
                f"instance filter: keep is {keep}; it is the share of instances to train on, above 0 and at most 1 "
                "(1 keeps all)"
            )
        self.keep = keep
        self.macs = 0
        self.generator = torch.Generator().manual_seed(seed)

    def select(self, batch: MiniBatch) -> Selection:
        raise NotImplementedError

    def step_length(self, kept: int, offered: int) -> float:
        return 1.0

    def learn(self, batch: MiniBatch, kept_K: Tensor, loss_K: Tensor) -> None:
        """Most filters have nothing to learn after the update."""

    def state_dict(self) -> dict[str, Tensor]:
        """Generator, count and learned tensors."""
        state = {name: getattr(self, name).clone() for name in self.tensors}
        return {"generator": self.generator.get_state(), "macs": torch.tensor(self.macs)} | state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`; UserError when it belongs to a filter of another kind or shape."""
        self.check_state(state)
        self.generator.set_state(state["generator"])
        self.macs = int(state["macs"])
        for name in self.tensors:
            setattr(self, name, state[name].clone())

    def check_state(self, state: dict[str, Tensor], more: dict[str, Tensor] | None = None) -> None:
        """Refuse a state whose names or shapes are not those of this filter (`more`: a subclass's own)."""
        wanted = Filter.state_dict(self) | (more or {})
        shapes = [{name: tuple(tensor.shape) for name, tensor in part.items()} for part in (state, wanted)]
        if shapes[0] != shapes[1]:
            odd = sorted(
                name for name in set(state) | set(wanted) if shapes[0].get(name) != shapes[1].get(name)
            )
            raise UserError(
                f"{type(self).__name__}: the saved state is not one of this filter (at {', '.join(odd[:3])}): "
                "load it into a filter of the same kind and settings, or start without it"
            )
