"""Training and judging on one client's shard in one round, as the settings say.

The one place of it, for fedge's devices and for the yardsticks that they are compared with: both take the same
mini-batches, losses, rates and answers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from fedge.data.shard import Batch, Shard
from fedge.data.transform import Transform
from fedge.device.adaptation.prior import LabelPrior
from fedge.device.early_exits.labels import withheld
from fedge.device.methods import made_for, settings_decay, settings_optimizer
from fedge.network.objective import taught_by, trained_by, transform_named
from fedge.prepare import Prepared
from fedge.references import Programs
from fedge.scenario.training import Training
from fedge.training.among import Among
from fedge.training.batches import Batches
from fedge.training.exits.network import ExitNetwork
from fedge.training.exits.task import ExitTask
from fedge.training.loop import evaluate, train
from fedge.training.memory_format import fast_order
from fedge.training.stats import Evaluation, TrainStats
from fedge.training.task import Task
from fedge.training.update.decay import Decay

EVALUATION_BATCH = 256

Drawn = Callable[[np.ndarray], None]
"""Is told which training rows a mini-batch holds that is about to be trained on."""


@dataclass(frozen=True)
class Local:
    """seed: of a purpose in this (run, client, round). round: from 1, of `rounds`, over which a rate may fall.
    known_N: which training rows have a label that the device knows; None: all."""

    training: Training
    prepared: Prepared
    shard: Shard
    programs: Programs
    torch_device: torch.device
    seed: Callable[..., int]
    round: int
    rounds: int
    drawn: Drawn | None = None
    prior: LabelPrior | None = None
    known_N: np.ndarray | None = None

    @property
    def task(self) -> Task:
        """What the network is asked for, with the loss that the settings name; corrected by the label prior."""
        task, classes = trained_by(self.prepared.asked, self.training.loss), self.answers
        task = task if self.prior is None else self.prior.corrected(task)
        if self.training.exits is not None:
            return taught_by(task, self.training.exits, classes)
        return task if classes is None else Among(task, classes)

    @property
    def whole_task(self) -> Task:
        """The same where all of the network learns: of one with exits, the last too."""
        task = self.task
        return replace(task, whole=True, trains_last=True) if isinstance(task, ExitTask) else task

    @property
    def answers(self) -> tuple[int, ...] | None:
        """The classes that are answers here, where the settings leave those of others out; None: all are."""
        own = self.training.answers == "own"
        return (self.shard.own_classes or None) if own else None

    @property
    def transform(self) -> Transform | None:
        """What the settings do to training batches."""
        return transform_named(self.training.transform, self.programs, key="training.transform")

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The settings' own, of what is trained of the model."""
        return made_for(model, partial(settings_optimizer, self.training))

    def batches(
        self,
        purpose: str,
        *parts: int,
        order: torch.memory_format = torch.contiguous_format,
        transform: Transform | None = None,
    ) -> Iterator[Batch]:
        """The training rows once, shuffled by the purpose's seed. transform: in place of the settings'."""
        told = self.drawn if purpose == "shuffle" else None
        batches = partial(
            self.shard.batches,
            "train",
            self.training.batch_size,
            seed=self.seed(purpose, *parts),
            transform=transform or self.transform,
            order=order,
            device=self.torch_device,
        )
        if self.known_N is None:
            return batches(drawn=told)
        return withheld(lambda drawn: batches(drawn=drawn), self.known_N, told)

    def epochs(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        purpose: str,
        *,
        task: Task | None = None,
        transform: Transform | None = None,
        first: int = 0,
        last: int | None = None,
        of: int | None = None,
        within: Callable[[Iterator[Batch]], Iterator[Batch]] | None = None,
        epoch_of: Callable[[int], Batches] | None = None,
        **methods: Any,
    ) -> Iterator[TrainStats]:
        """Train `model`, yielding after each of its local epochs, `first` to `last` (left out) `of` so many in the
        round; all of `training.epochs` where nothing is said. task, transform: in place of the settings'. within:
        passes on the mini-batches that there is time for. epoch_of: gives the mini-batches of a local epoch, in
        place of the training rows'.
        """
        count = of or self.training.epochs
        curve = settings_decay(self.training)
        size = min(self.training.batch_size, self.shard.count("train"))
        order = fast_order(model, size, self.prepared.input_shape)
        decay = None if curve is None else Decay(optimizer, curve)
        for epoch in range(first, count if last is None else last):
            batches: Batches = (
                self.batches(purpose, epoch, order=order, transform=transform)
                if epoch_of is None
                else epoch_of(epoch)
            )
            if within is not None:
                batches = within(iter(batches))
            if decay is not None:
                batches = decay.over(batches, **self.span(epoch, count))
            yield train(model, batches, optimizer=optimizer, task=task or self.task, **methods)

    def span(self, epoch: int, of: int) -> dict[str, Any]:
        """Of a local epoch, for a learning rate that falls: its mini-batches, and the shares of the training before and
        after it. Those are of the whole run, round by round whoever took part, or of this round; a client that is
        unseen until the run is over has this one alone."""
        start, end = epoch / of, (epoch + 1) / of
        if self.training.decay.per == "run" and self.round <= self.rounds:
            start, end = ((self.round - 1 + share) / self.rounds for share in (start, end))
        return {
            "count": -(-self.shard.count("train") // self.training.batch_size),
            "start": start,
            "end": end,
        }

    def evaluated(
        self,
        split: str,
        model: nn.Module,
        classes: Sequence[int] | None,
        order: torch.memory_format,
        *,
        corrected: bool = False,
    ) -> Evaluation:
        """The model's answers on one part of the shard (train, validation or test), among these classes alone; None:
        among all. corrected: by the label prior, where there is one."""
        batches = self.shard.batches(split, EVALUATION_BATCH, order=order, device=self.torch_device)
        task = self.prepared.asked
        task = self.prior.corrected(task) if corrected and self.prior is not None else task
        with model.answering_among(classes) if isinstance(model, ExitNetwork) else nullcontext():
            return evaluate(model, batches, classes=classes, task=task)
