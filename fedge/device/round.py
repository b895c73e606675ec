"""What the parts of a device share in one round: whose it is, what is asked, the data, the network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fedge.cache import hold
from fedge.data.shard import Batch, Shard
from fedge.data.transform import Transform
from fedge.device.location import Location
from fedge.device.methods import Methods
from fedge.device.network import Network
from fedge.device.own.loop import Count
from fedge.device.state import DeviceState
from fedge.network.objective import trained_by, transform_named
from fedge.prepare import Prepared
from fedge.protocol import DeviceFailure, RoundPlan, RoundReport, Status
from fedge.seeding import derive_seed
from fedge.training.among import Among
from fedge.training.loop import evaluate
from fedge.training.memory_format import fast_order
from fedge.training.stats import Evaluation
from fedge.training.task import Task
from fedge.training.torch_device import opened

EVALUATION_BATCH = 256


class Round:
    """One client's round. `training` is the plan's, with a smaller batch where the device could not hold it."""

    def __init__(self, location: Location, plan: RoundPlan, before: DeviceState) -> None:
        self.client = location.client
        self.simulated = location.simulated
        self.plan = plan
        self.training = plan.training
        self.before = before
        self.last_report = RoundReport.from_json(before.report)
        hold(location.data_folder)
        self.prepared = Prepared.open(location.data_folder)
        self.shard = Shard.open(location.data_folder / "shards", location.shard)
        self.torch_device = opened(self.simulated.torch_device)
        self.network = Network(self.prepared, before, self.torch_device)
        self.network.freeze(self.training.what, self.prepared.input_shape)
        self.factory = before.factory  # what is kept of the factory model's answers
        self.count: Count | None = None  # of a program's own loop, while it is in one

    @property
    def methods(self) -> Methods:
        """The maker of what the plan's settings name."""
        return Methods(
            self.training,
            self.prepared.input_shape,
            seed=self.seed,
            filter_seed=derive_seed(self.simulated.seed, self.client, "instance_filter"),
            programs=self.simulated.programs,
        )

    def seed(self, purpose: str, *parts: int) -> int:
        """The seed of one purpose in this (run, client, round)."""
        return derive_seed(self.simulated.seed, self.client, self.plan.round, purpose, *parts)

    @property
    def samples(self) -> int:
        """Number of training samples; a device without any has nothing to do in a round."""
        if not self.shard.count("train"):
            raise DeviceFailure(Status.NO_TRAINING_DATA)
        return self.shard.count("train")

    @property
    def batch_size(self) -> int:
        """Of the largest mini-batch in training."""
        return min(self.training.batch_size, self.samples)

    @property
    def task(self) -> Task:
        """What the network is asked for, with the loss that the plan's settings name."""
        task, classes = trained_by(self.prepared.asked, self.training.loss), self.answers
        return task if classes is None else Among(task, classes)

    @property
    def answers(self) -> tuple[int, ...] | None:
        """The classes that are answers here, where the settings leave those of others out; None: all are."""
        own = self.training.answers == "own"
        return (self.shard.own_classes or None) if own else None

    @property
    def transform(self) -> Transform | None:
        """What the settings do to training batches."""
        key = "training.transform"
        return transform_named(self.training.transform, self.simulated.programs, key=key)

    def batches(
        self, model: nn.Module, purpose: str, *parts: int, transform: Transform | None = None
    ) -> Iterator[Batch]:
        """The training rows once, shuffled by the purpose's seed, in the order in memory in which `model` is fast.

        transform: in place of the settings'.
        """
        choice = self.training
        return self.shard.batches(
            "train",
            choice.batch_size,
            seed=self.seed(purpose, *parts),
            transform=transform or self.transform,
            order=self.order(model),
            device=self.torch_device,
        )

    def span(self, epoch: int) -> dict[str, Any]:
        """Of a local epoch, for a learning rate that falls: its mini-batches, and the shares of the training before and
        after it. Those are of the whole run, round by round whoever took part, or of this round."""
        epochs, rounds = self.training.epochs, self.simulated.rounds
        start, end = epoch / epochs, (epoch + 1) / epochs
        if self.training.decay.per == "run":
            start, end = ((self.plan.round - 1 + share) / rounds for share in (start, end))
        return {"count": -(-self.samples // self.training.batch_size), "start": start, "end": end}

    def order(self, model: nn.Module) -> torch.memory_format:
        """Of training data in memory, in which `model` is fast."""
        with self.uncounted():
            return fast_order(model, self.batch_size, self.prepared.input_shape)

    def evaluate(self, split: str, model: nn.Module) -> Evaluation:
        """Count the device's right answers on one part of the shard: train, validation or test."""
        return self.evaluated(split, model, self.answers)

    def evaluated(self, split: str, model: nn.Module, classes: Sequence[int] | None) -> Evaluation:
        """The same of any model, among these classes alone; None: among all."""
        with self.uncounted():
            order = fast_order(model, EVALUATION_BATCH, self.prepared.input_shape)
        batches = self.shard.batches(split, EVALUATION_BATCH, order=order, device=self.torch_device)
        return evaluate(model, batches, classes=classes, task=self.prepared.asked)

    def require_counted(self) -> None:
        """UserError where the network changed and nobody counted; a counted loop is asked when it ends."""
        if self.count is None:
            self.network.require_counted()

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """In a counted loop: passes of the network that the device counts elsewhere, or would not make."""
        if self.count is None:
            yield
            return
        with self.count.paused():
            yield
