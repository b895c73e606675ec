"""One client of a yardstick: its shard, how it trains a network on it, and how that answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from fedge.data.shard import Batch, Shard
from fedge.device.factory_answers import FactoryAnswers
from fedge.device.methods import made_for, settings_optimizer
from fedge.network.objective import trained_by, transform_named
from fedge.prepare import Prepared
from fedge.scenario.schema import DeviceClass, Scenario
from fedge.scenario.training import Training
from fedge.seeding import derive_seed
from fedge.training.among import Among
from fedge.training.loop import evaluate, train
from fedge.training.memory_format import fast_order
from fedge.training.stats import Evaluation, TrainStats
from fedge.training.task import Task
from fedge.training.torch_device import opened
from fedge.yardsticks.methods import PROXIMITY

EVALUATION_BATCH = 256

State = dict[str, Tensor]


@dataclass
class Client:
    """`own`: tensors that never leave it. `personal`: Ditto's network. `factory`: what the factory model answers."""

    number: int
    device_class: DeviceClass
    shard: Shard
    scenario: Scenario
    task: Task
    own: State = field(default_factory=dict)
    personal: State | None = None
    factory: FactoryAnswers | None = None

    @property
    def samples(self) -> int:
        return self.shard.count("train")

    @property
    def training(self) -> Training:
        """The settings of its device class."""
        return self.scenario.training_of(self.device_class)

    @property
    def answers(self) -> tuple[int, ...] | None:
        """The classes that are answers here, where `training.answers` leaves others' out; None: all are."""
        return self.shard.own_classes if self.training.answers == "own" else None

    def train(self, model: nn.Module, round: int, *, epochs: int, purpose: str = "shuffle") -> TrainStats:
        """Plain local training, on the mini-batches that a device of fedge would take in that round."""
        return self._train(model, self._optimizer(model), round, epochs, purpose)

    def train_near(self, model: nn.Module, average: Mapping[str, Tensor], round: int) -> TrainStats:
        """Ditto's: the gradient of (lambda / 2) |v - w|^2 is added, w the average."""
        optimizer = self._optimizer(model)

        def pull(*_: object) -> None:
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - average[name], alpha=PROXIMITY)

        optimizer.register_step_pre_hook(pull)
        return self._train(model, optimizer, round, self.training.epochs, "personal")

    def _optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return made_for(model, partial(settings_optimizer, self.training))

    def _train(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, round: int, epochs: int, purpose: str
    ) -> TrainStats:
        total = TrainStats()
        task, classes = trained_by(self.task, self.training.loss), self.answers
        if classes is not None:
            task = Among(task, classes)
        for epoch in range(epochs):
            batches = self._batches(model, round, purpose, epoch)
            total += train(model, batches, optimizer=optimizer, task=task)
        return total

    def _batches(self, model: nn.Module, round: int, purpose: str, epoch: int) -> Iterator[Batch]:
        training = self.training
        size = min(training.batch_size, self.samples)
        return self.shard.batches(
            "train",
            training.batch_size,
            seed=derive_seed(self.scenario.seed, self.number, round, purpose, epoch),
            transform=transform_named(training.transform, self.scenario.programs, key="training.transform"),
            order=fast_order(model, size, self.shard.shape),
        )

    def evaluate(self, model: nn.Module, split: str, classes: Sequence[int] | None = None) -> Evaluation:
        order = fast_order(model, EVALUATION_BATCH, self.shard.shape)
        batches = self.shard.batches(split, EVALUATION_BATCH, order=order)
        return evaluate(model, batches, classes=classes, task=self.task)

    def factory_answers(self, prepared: Prepared) -> FactoryAnswers:
        """What the factory model answers on the test rows, asked once."""
        if self.factory is None:
            model = prepared.factory_model().to(opened(self.scenario.engine.device))
            self.factory = FactoryAnswers.asked(
                lambda classes: self.evaluate(model, "test", classes), self.shard
            )
        return self.factory
