"""What exits learn from: labels where there are any, elsewhere the last exit's answers.

    labels   CE(exit_k(x), y)                                                a sample without a label is not learnt from
    hard     CE(exit_k(x), argmax of the last exit)                          self-supervision
    soft     T^2 KL(softmax(last / T) || softmax(exit_k(x) / T))             self-distillation

summed over the exits, each of which has weights of its own. Under hard and soft a sample with a label is learnt from
its label. The teacher is the last exit *with its prior corrected*: a network that was not told which classes a person
meets teaches the other classes (docs/methods/exits.md). Shapes: B samples, C classes, E exits, the last one last.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fedge.errors import UserError
from fedge.training.outputs import one_tensor
from fedge.training.task import Wrapped

UNLABELLED = -1
"""The target of a sample whose label is not known."""

Teach = Literal["labels", "hard", "soft"]


@dataclass(frozen=True)
class ExitTask(Wrapped):
    """`task`, which asks for classes, of every exit.

    whole: whether the last exit is among the outputs. trains_last: whether it learns, from labels alone.
    among: the classes that are answers; None: all. temperature: T above, greater than 0.
    """

    teach: Teach = "labels"
    temperature: float = 1.0
    whole: bool = True
    trains_last: bool = False
    among: tuple[int, ...] | None = None

    def outputs(self, output: object, samples: int) -> Tensor:
        out_BCE = one_tensor(output, "one tensor of logits [B, C, exits] is wanted")
        if out_BCE.dim() != 3 or len(out_BCE) != samples:
            raise UserError(
                f"the network returns {list(out_BCE.shape)} for {samples} samples; [{samples}, C, exits] is wanted: "
                "training.exits trains networks that fedge gave exits"
            )
        return out_BCE

    def check_targets(self, y_B: object, out_BCE: Tensor) -> None:
        if not isinstance(y_B, Tensor) or y_B.is_floating_point() or y_B.shape != out_BCE.shape[:1]:
            raise UserError("targets of exits must be class numbers [B], -1 where a label is not known")
        if len(y_B) and not (int(y_B.min()) >= UNLABELLED and int(y_B.max()) < out_BCE.shape[1]):
            raise UserError(
                f"targets must be -1 to {out_BCE.shape[1] - 1}, got {int(y_B.min())} to {int(y_B.max())}"
            )

    def loss(self, out_BCE: Tensor, y_B: Tensor) -> Tensor:
        out_BCE, y_B = self._narrowed(out_BCE, y_B.long())
        early_BCK = out_BCE[:, :, :-1] if self.whole else out_BCE
        known_B = y_B >= 0
        taught_BK = self._by_label(early_BCK, y_B)
        if self.teach != "labels":
            taught_BK = torch.where(
                known_B[:, None], taught_BK, self._by_teacher(early_BCK, out_BCE[:, :, -1].detach())
            )
        loss_B = taught_BK.sum(1)
        if self.trains_last:
            loss_B = loss_B + self._by_label(out_BCE[:, :, -1:], y_B)[:, 0]
        return loss_B

    def right(self, out_BCE: Tensor, y_B: Tensor) -> Tensor:
        """Of the last exit among the outputs."""
        return self.task.right(out_BCE[:, :, -1], y_B)

    def blank(self, out_BCE: Tensor) -> Tensor:
        first = 0 if self.among is None else self.among[0]
        return torch.full((len(out_BCE),), first, dtype=torch.long, device=out_BCE.device)

    def draw(self, samples: int, columns: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, 2, (samples,), generator=generator)

    def _by_label(self, out_BCK: Tensor, y_B: Tensor) -> Tensor:
        """[B, K], 0 where the label is not known."""
        by_exit = [self.task.loss(out_BC, y_B.clamp(min=0)) for out_BC in out_BCK.unbind(2)]
        return torch.stack(by_exit, 1).masked_fill((y_B < 0)[:, None], 0.0)

    def _by_teacher(self, out_BCK: Tensor, teacher_BC: Tensor) -> Tensor:
        """[B, K]."""
        exits = out_BCK.shape[2]
        if self.teach == "hard":
            answer_BK = teacher_BC.argmax(1)[:, None].expand(-1, exits)
            return F.cross_entropy(out_BCK, answer_BK, reduction="none")
        t = self.temperature
        of_teacher_BC1 = (teacher_BC / t).log_softmax(1)[:, :, None]
        of_exits_BCK = (out_BCK / t).log_softmax(1)
        return t**2 * (of_teacher_BC1.exp() * (of_teacher_BC1 - of_exits_BCK)).sum(1)

    def _narrowed(self, out_BCE: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        """To the classes that are answers; a label that is none of them is not known."""
        if self.among is None:
            return out_BCE, y_B
        own_O = torch.tensor(self.among, device=out_BCE.device)
        place_C = torch.full((out_BCE.shape[1],), UNLABELLED, dtype=torch.long, device=out_BCE.device)
        place_C[own_O] = torch.arange(len(self.among), device=out_BCE.device)
        return out_BCE.index_select(1, own_O), torch.where(y_B < 0, y_B, place_C[y_B.clamp(min=0)])
