"""What the filters share: a private random generator, a count of MACs, and a state made of tensors only."""

import torch
from torch import Tensor

from fedge.errors import UserError
from fedge.training.instance_filter import MiniBatch, Selection


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

    def learn(self, batch: MiniBatch, kept_K: Tensor, loss_K: Tensor) -> None:
        """Most filters have nothing to learn after the update."""

    def state_dict(self) -> dict[str, Tensor]:
        """Generator and learned tensors."""
        state = {name: getattr(self, name).clone() for name in self.tensors}
        return {"generator": self.generator.get_state(), "macs": torch.tensor(self.macs)} | state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`; UserError when it belongs to another filter."""
        wanted = {"generator", "macs", *self.tensors}
        if set(state) != wanted:
            raise UserError(
                f"{type(self).__name__}: the saved state has {sorted(state)}, this filter needs {sorted(wanted)}: "
                "load the state of a filter of the same kind"
            )
        self.generator.set_state(state["generator"])
        self.macs = int(state["macs"])
        for name in self.tensors:
            setattr(self, name, state[name].clone())
