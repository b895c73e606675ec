"""What is asked of a network: which loss its outputs have, which of its answers are right, how far off they are.

    task      outputs [B, K]                    targets                        loss
    classes   logits, or [B, K, ...] per pixel  int [B] or [B, ...]: 0..K-1    cross-entropy
    labels    logits, one per label             0 or 1 [B, K]                  binary cross-entropy, mean over labels
    numbers   standardised numbers              standardised float [B, K]      squared or Huber, mean over the numbers

Training, evaluation, filters, criteria and the memory estimate ask the task and know nothing of targets themselves.
Shapes: B samples, K classes, labels or numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fedge.catalog.facts import Task as TaskName
from fedge.catalog.names import LOSSES
from fedge.errors import UserError
from fedge.training.outputs import check_targets, logits_of, one_per_column, require_tensor

OwnLoss = Callable[[Tensor, Tensor], Tensor]
HALF_A_DEVIATION = 0.5
"""Of the targets: how near a number is right where no tolerance is declared."""


class Task(Protocol):
    """The one place of what is asked of a network. A task of one's own is a class with these members."""

    @property
    def name(self) -> str:
        """Of the data's task that it fits: classes, labels or numbers."""

    def outputs(self, output: object, samples: int) -> Tensor:
        """What a network returned for that many samples, as one tensor; UserError where it is not."""

    def check_targets(self, y_B: object, out_BK: Tensor) -> None:
        """UserError unless `y_B` holds targets for these outputs."""

    def loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        """Of each sample [B]: filters and taylor need it before the mean."""

    def mean_loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        """The mean of the samples' losses, which a plain step goes down."""
        return self.loss(out_BK, y_B).mean()

    def total_loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        """Their sum."""
        return self.loss(out_BK, y_B).sum()

    def right(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        """Right decisions, bool: [B] or [B, ...] of classes, [B, K] of labels, [B] of numbers; NaN is none."""

    def error(self, out_BK: Tensor, y_B: Tensor) -> Tensor | None:
        """How far off each sample's answer is [B], 0 or more, in the targets' unit; None where that says nothing."""
        return None

    def blank(self, out_BK: Tensor) -> Tensor:
        """Targets of the right type and shape for these outputs, for runs in which values do not matter."""

    def draw(self, samples: int, columns: int, generator: torch.Generator) -> Tensor:
        """Random targets, for a dry run of a network with that many outputs."""


@dataclass(frozen=True)
class Classes(Task):
    """One class per sample, or per pixel. label_smoothing: the share of a target that all classes get, 0 <= it < 1."""

    label_smoothing: float = 0.0

    @property
    def name(self) -> TaskName:
        return "classes"

    def outputs(self, output: object, samples: int) -> Tensor:
        return logits_of(output, samples)

    def check_targets(self, y_B: object, out_BK: Tensor) -> None:
        check_targets(y_B, out_BK)

    def loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        """The mean over its pixels where there is a class for each."""
        loss = self._cross_entropy(out_BK, y_B, "none")
        return loss.flatten(1).mean(1) if loss.dim() > 1 else loss

    def mean_loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        return self._cross_entropy(out_BK, y_B, "mean")

    def total_loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        """Over all decisions: pixels, where there is a class for each."""
        return self._cross_entropy(out_BK, y_B, "sum")

    def right(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        """By the largest logit, where that is a number and none is NaN."""
        best_B, answer_B = out_BK.max(1)  # NaN where any logit is
        return (answer_B == y_B) & best_B.isfinite()

    def blank(self, out_BK: Tensor) -> Tensor:
        return torch.zeros(len(out_BK), *out_BK.shape[2:], dtype=torch.long, device=out_BK.device)

    def draw(self, samples: int, columns: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, 2, (samples,), generator=generator)

    def _cross_entropy(self, out_BK: Tensor, y_B: Tensor, reduction: str) -> Tensor:
        return F.cross_entropy(out_BK, y_B, reduction=reduction, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class Labels(Task):
    """Any of K labels per sample, a decision for each: a label is answered with yes where its logit is above 0."""

    @property
    def name(self) -> TaskName:
        return "labels"

    def outputs(self, output: object, samples: int) -> Tensor:
        return one_per_column(output, samples, "logits", "label")

    def check_targets(self, y_B: object, out_BK: Tensor) -> None:
        y_BK = require_tensor(y_B, out_BK.shape, "labels of 0 and 1")
        if not bool(((y_BK == 0) | (y_BK == 1)).all()):
            odd = float(y_BK[(y_BK != 0) & (y_BK != 1)][0])
            raise UserError(
                f"targets hold {odd:g}; 0 and 1 are wanted, one column a label: where a column has more values than "
                "two it is a class or a number"
            )

    def loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        loss_BK = F.binary_cross_entropy_with_logits(out_BK, y_B.to(out_BK.dtype), reduction="none")
        return loss_BK.mean(1)

    def right(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        return ((out_BK > 0) == y_B.bool()) & out_BK.isfinite()

    def blank(self, out_BK: Tensor) -> Tensor:
        return torch.zeros(out_BK.shape, dtype=torch.uint8, device=out_BK.device)

    def draw(self, samples: int, columns: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, 2, (samples, columns), generator=generator).to(torch.uint8)


@dataclass(frozen=True)
class Numbers(Task):
    """K numbers per sample (regression), standardised: networks learn them whatever their unit is.

    scale: what one standard deviation is in the targets' unit, per number; none: 1. tolerance: how near a number must
    be to be right, in that unit; none: half a standard deviation. A sample is right where all its numbers are.
    huber: from where on, in standard deviations, the loss grows with the error and not with its square; None: nowhere.
    """

    scale: tuple[float, ...] = ()
    tolerance: tuple[float, ...] = ()
    huber: float | None = None

    @property
    def name(self) -> TaskName:
        return "numbers"

    def outputs(self, output: object, samples: int) -> Tensor:
        return one_per_column(output, samples, "numbers", "number")

    def check_targets(self, y_B: object, out_BK: Tensor) -> None:
        y_BK = require_tensor(y_B, out_BK.shape, "numbers")
        if not y_BK.is_floating_point():
            raise UserError(
                f"targets are of type {y_BK.dtype}; floats are wanted: make them with .float() where they are numbers"
            )
        if not bool(y_BK.isfinite().all()):
            raise UserError("targets hold nan or infinity; finite numbers are wanted: clean the data")

    def loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        if self.huber is None:
            return F.mse_loss(out_BK, y_B.to(out_BK.dtype), reduction="none").mean(1)
        return F.huber_loss(out_BK, y_B.to(out_BK.dtype), reduction="none", delta=self.huber).mean(1)

    def right(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        scale_K = self._per_number(self.scale, 1.0, out_BK)
        near_K = self._per_number(self.tolerance, HALF_A_DEVIATION, out_BK)
        if not self.tolerance:
            near_K = near_K * scale_K
        return (self._off(out_BK, y_B) <= near_K).all(1)

    def error(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        """The mean over its numbers of the absolute error."""
        return self._off(out_BK, y_B).mean(1)

    def blank(self, out_BK: Tensor) -> Tensor:
        return torch.zeros(out_BK.shape, dtype=out_BK.dtype, device=out_BK.device)

    def draw(self, samples: int, columns: int, generator: torch.Generator) -> Tensor:
        return torch.randn(samples, columns, generator=generator)

    def _off(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        return (out_BK.double() - y_B).abs() * self._per_number(self.scale, 1.0, out_BK)

    def _per_number(self, values: Sequence[float], default: float, out_BK: Tensor) -> Tensor:
        columns = out_BK.shape[1]
        if values and len(values) != columns:
            raise UserError(
                f"the task has {len(values)} numbers and the network {columns} outputs: end it with num_classes outputs"
            )
        return torch.tensor(values or [default] * columns, dtype=torch.float64, device=out_BK.device)


@dataclass(frozen=True)
class Wrapped(Task):
    """`task`, of which some is asked otherwise."""

    task: Task

    @property
    def name(self) -> str:
        return self.task.name

    def outputs(self, output: object, samples: int) -> Tensor:
        return self.task.outputs(output, samples)

    def check_targets(self, y_B: object, out_BK: Tensor) -> None:
        self.task.check_targets(y_B, out_BK)


@dataclass(frozen=True)
class WithOwnLoss(Wrapped):
    """`task` with a loss of one's own, `own_loss(out_BK, y_B)` -> [B]; what is right stays as it is."""

    own_loss: OwnLoss

    def loss(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        """UserError where the function gives anything but one loss for each sample."""
        loss_B: object = self.own_loss(out_BK, y_B)
        if not isinstance(loss_B, Tensor):
            raise UserError(
                f"loss returned a {type(loss_B).__name__}; a tensor [B] is wanted, a loss per sample"
            )
        if list(loss_B.shape) != [len(out_BK)]:
            raise UserError(
                f"loss returned {list(loss_B.shape)} for {len(out_BK)} samples; [{len(out_BK)}] is wanted, a loss per "
                'sample and no mean: reduction="none"'
            )
        return loss_B

    def right(self, out_BK: Tensor, y_B: Tensor) -> Tensor:
        return self.task.right(out_BK, y_B)

    def error(self, out_BK: Tensor, y_B: Tensor) -> Tensor | None:
        return self.task.error(out_BK, y_B)

    def blank(self, out_BK: Tensor) -> Tensor:
        return self.task.blank(out_BK)

    def draw(self, samples: int, columns: int, generator: torch.Generator) -> Tensor:
        return self.task.draw(samples, columns, generator)


def with_loss(task: Task, kind: str, *, label_smoothing: float = 0.0, delta: float = 1.0) -> Task:
    """`task` trained by the loss of that kind; UserError where that is none of its.

    label_smoothing: of cross_entropy. delta: of huber, in standard deviations of the targets.
    """
    fitting = LOSSES.get(task.name, ())
    if kind not in fitting:
        raise UserError(
            f"training.loss.kind is {kind!r}, and the data's task is {task.name!r}: take {' or '.join(fitting)}"
        )
    if isinstance(task, Classes):
        return replace(task, label_smoothing=label_smoothing)
    if isinstance(task, Numbers):
        return replace(task, huber=delta if kind == "huber" else None)
    return task
