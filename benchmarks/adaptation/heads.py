"""The methods of one row each: what is trained, on what, and what it answers."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedge.seeding import derive_seed
from fedge.training.among import Among
from fedge.training.batches import Batches
from fedge.training.features import Shipped, drawn_epoch
from fedge.training.features.trunk import in_batches
from fedge.training.label_prior import Corrected
from fedge.training.loop import train
from fedge.training.task import Classes, Task

BATCH, MOMENTUM = 64, 0.9
RATES = (0.003, 0.01, 0.03)


@dataclass(frozen=True, eq=False)
class Rows:
    """Features [N, F] and labels [N] of one part of a group's rows."""

    features_NF: Tensor
    y_N: Tensor

    def logits(self, head: nn.Module) -> Tensor:
        """[N, C]."""
        with torch.no_grad():
            out_NC: Tensor = head(self.features_NF)
        return out_NC

    def accuracy(self, head: nn.Module, task: Task) -> float:
        """0..1."""
        out_NC = task.outputs(self.logits(head), len(self.y_N))
        return float(task.right(out_NC, self.y_N).double().mean())


def told(classes: Sequence[int]) -> Task:
    """Answers among these alone."""
    return Among(Classes(), tuple(classes))


def corrected(prior_C: Tensor, factory_C: Tensor) -> Task:
    """Answers by this prior."""
    return Corrected.by(Classes(), prior_C, factory_C)


def trained(
    head: nn.Module, epochs: int, epoch: Callable[[int], Batches], rate: float, task: Task
) -> tuple[nn.Module, int]:
    """A copy of the head after so many epochs, and the MACs of them."""
    head = copy.deepcopy(head).requires_grad_(True)
    optimizer = torch.optim.SGD(head.parameters(), lr=rate, momentum=MOMENTUM)
    macs = sum(
        train(head, epoch(number), optimizer=optimizer, task=task).macs_done for number in range(epochs)
    )
    return head, macs


def on_rows(rows: Rows, count: int | None, seed: int) -> Callable[[int], Batches]:
    """Epochs over `count` of the rows, chosen by chance; None: over all."""
    chosen_N = torch.randperm(len(rows.y_N), generator=torch.Generator().manual_seed(seed))[:count]
    z_NF, y_N = rows.features_NF[chosen_N], rows.y_N[chosen_N]
    return lambda number: in_batches(z_NF, y_N, BATCH, derive_seed(seed, number))


def on_drawn(shipped: Shipped, share_C: Tensor, samples: int, seed: int) -> Callable[[int], Batches]:
    """Epochs of drawn features, each as long as the device's own rows."""
    return lambda number: drawn_epoch(shipped, share_C, samples, BATCH, derive_seed(seed, number))


def shares(classes: Sequence[int], count: int) -> Tensor:
    """Equal ones of these classes [C]."""
    share_C = torch.zeros(count, dtype=torch.float64)
    share_C[list(classes)] = 1 / len(classes)
    return share_C
