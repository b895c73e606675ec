"""One client of a yardstick: its shard, how it trains a network on it, and how that answers.

It trains as a device of fedge does without fedge's methods, by the same maker of the same settings: the whole of
`training` but pruning, filter, error maps and quantization.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedge.data.shard import Shard
from fedge.device.answers.factory import FactoryAnswers
from fedge.device.local import EVALUATION_BATCH, Local
from fedge.errors import RunError
from fedge.prepare import Prepared
from fedge.scenario.methods.adaptation import Adaptation
from fedge.scenario.schema import DeviceClass, Scenario
from fedge.scenario.training import ErrorMaps, OtherFilter, Pruning, Training
from fedge.seeding import derive_seed
from fedge.training.memory_format import fast_order
from fedge.training.stats import Evaluation, TrainStats
from fedge.training.torch_device import opened
from fedge.yardsticks.methods import PROXIMITY

State = dict[str, Tensor]


@dataclass
class Client:
    """`own`: tensors that never leave it. `personal`: Ditto's network. `factory`: what the factory model answers."""

    number: int
    device_class: DeviceClass
    training: Training  # of its device class, without fedge's methods
    scenario: Scenario
    prepared: Prepared
    shard: Shard
    own: State = field(default_factory=dict)
    personal: State | None = None
    factory: FactoryAnswers | None = None

    @classmethod
    def of(cls, scenario: Scenario, prepared: Prepared, number: int) -> "Client":
        """The scenario's client of that number."""
        device_class = scenario.device_class_of(number)
        shard = Shard.open(Path(prepared.folder) / "shards", number)
        shard = shard.in_multiples_of(scenario.privacy.least_count)
        return cls(number, device_class, plain(scenario.training_of(device_class)), scenario, prepared, shard)

    @property
    def samples(self) -> int:
        return self.shard.count("train")

    @property
    def batch_size(self) -> int:
        return min(self.training.batch_size, self.samples)

    def local(self, round: int) -> Local:
        """Its training and judging in that round: a device's, bit for bit."""
        return Local(
            self.training,
            self.prepared,
            self.shard,
            self.scenario.programs,
            opened(self.scenario.engine.device),
            seed=partial(derive_seed, self.scenario.seed, self.number, round),
            round=round,
            rounds=self.scenario.rounds,
        )

    def train(self, model: nn.Module, round: int, purpose: str = "shuffle", **epochs: int) -> TrainStats:
        """Plain local training of what is not frozen. epochs: `first`, `last` and `of`, as in `Local.epochs`."""
        local = self.local(round)
        return self._summed(local, model, local.optimizer(model), purpose, **epochs)

    def train_near(self, model: nn.Module, average: Mapping[str, Tensor], round: int) -> TrainStats:
        """Ditto's: the gradient of (lambda / 2) |v - w|^2 is added, w the average."""
        local = self.local(round)
        optimizer = local.optimizer(model)

        def pull(*_: object) -> None:
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - average[name], alpha=PROXIMITY)

        optimizer.register_step_pre_hook(pull)
        return self._summed(local, model, optimizer, "personal")

    def _summed(
        self,
        local: Local,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        purpose: str,
        **epochs: Any,
    ) -> TrainStats:
        total = TrainStats()
        for stats in local.epochs(model, optimizer, purpose, **epochs):
            total += stats
            if not math.isfinite(total.loss):
                raise RunError(
                    f"client {self.number} diverged in round {local.round} (loss {total.loss}): lower "
                    "training.learning_rate"
                )
        return total

    def evaluate(self, model: nn.Module, split: str, classes: Sequence[int] | None, round: int) -> Evaluation:
        order = fast_order(model, EVALUATION_BATCH, self.shard.shape)
        return self.local(round).evaluated(split, model, classes, order)

    def factory_answers(self) -> FactoryAnswers:
        """What the factory model answers on the test rows, asked once."""
        if self.factory is None:
            model = self.prepared.factory_model().to(opened(self.scenario.engine.device))
            self.factory = FactoryAnswers.asked(
                lambda classes: self.evaluate(model, "test", classes, round=1), self.shard
            )
        return self.factory


def plain(training: Training) -> Training:
    """The same without fedge's methods."""
    without = {
        "pruning": Pruning(),
        "instance_filter": OtherFilter(),
        "error_maps": ErrorMaps(),
        "quantization": None,
        "prior": "none",
        "source": None,
        "adaptation": Adaptation(),
    }
    return training.model_copy(update=without)
