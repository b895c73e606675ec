"""A task whose answers are corrected by a label prior: loss, ranking, filters and answers all go by it.

    corrected logits = logits + T log(pi / pi0)

of which the softmax at temperature T is p(y | x) pi_y / pi0_y, normalised. A network that is trained under the
correction learns what the prior does not tell already, and keeps the factory's prior in its own logits: nothing is
corrected twice.
Shapes: B samples, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.label_prior.em import log_ratio
from fedge.training.outputs import one_tensor
from fedge.training.task import Task, Wrapped


@dataclass(frozen=True)
class Corrected(Wrapped):
    """`task`, which asks for one class for each sample; `shift` is T log(pi / pi0) by class."""

    shift: tuple[float, ...]

    @classmethod
    def by(
        cls, task: Task, prior_C: Tensor, factory_prior_C: Tensor, temperature: float = 1.0
    ) -> "Corrected":
        """With the device's prior in place of the factory's; each sums to 1. temperature: of the network's answers,
        above 0 (temperature.py)."""
        return cls(task, tuple((temperature * log_ratio(prior_C, factory_prior_C)).tolist()))

    def outputs(self, output: object, samples: int) -> Tensor:
        """Corrected logits [B, K]. UserError where the network does not tell one class for each sample."""
        out_BK = self.task.outputs(output, samples)
        if out_BK.dim() != 2 or out_BK.shape[1] != len(self.shift):
            raise UserError(
                f"training.prior is 'em', which corrects one answer among {len(self.shift)} classes for each sample; "
                f"the network gives {list(out_BK.shape)}: take 'none'"
            )
        return out_BK + torch.tensor(self.shift, dtype=out_BK.dtype, device=out_BK.device)

    def loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        return self.task.loss(out_BK, y_B)

    def mean_loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        return self.task.mean_loss(out_BK, y_B)

    def total_loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        return self.task.total_loss(out_BK, y_B)

    def right(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        return self.task.right(out_BK, y_B)

    def blank(self, out_BK: Tensor) -> Tensor:
        return self.task.blank(out_BK)

    def draw(self, samples: int, columns: int, generator: torch.Generator) -> Tensor:
        return self.task.draw(samples, columns, generator)


class CorrectedNetwork(nn.Module):
    """A network whose logits [B, K] are corrected by `shift_K`, for whoever takes it from a device."""

    shift_K: Tensor

    def __init__(self, network: nn.Module, shift: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("shift_K", torch.tensor(shift))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Corrected logits."""
        return one_tensor(self.network(x_BCHW)) + self.shift_K
