"""A simulated device during one round: its shard, its network, what it spends, what it will say."""

import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from fedge.data.shard import Batch, Shard
from fedge.device.budget.battery import Charge
from fedge.device.factory_answers import FactoryAnswers
from fedge.device.level import find_level, remembered
from fedge.device.location import Location
from fedge.device.memory.demand import fit_to_memory, peak_bytes
from fedge.device.memory.fitting import Fit
from fedge.device.state import DeviceState
from fedge.errors import UserError
from fedge.prepare import Prepared
from fedge.protocol import DeviceFailure, RoundPlan, RoundReport, Status, finite
from fedge.seeding import derive_seed
from fedge.training.batches import Batches
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.instance_filter.filters import InstanceFilter, make_filter
from fedge.training.loop import evaluate, train
from fedge.training.macs import count_macs
from fedge.training.memory_format import fast_order
from fedge.training.pruning.criteria import CRITERIA, Criterion
from fedge.training.pruning.level_search import Found
from fedge.training.pruning.one_shot import prune
from fedge.training.pruning.topology import Topology
from fedge.training.quantization import Quantization
from fedge.training.stats import Evaluation, TrainStats

EVALUATION_BATCH = 256


class Device:
    """One client's device in one round. Made by `on_device`; a client program calls its methods in order."""

    def __init__(self, location: Location, plan: RoundPlan, state: DeviceState) -> None:
        self._started = time.perf_counter()
        torch.set_num_threads(location.scenario.engine.threads)
        self.location = location
        self.client = location.client
        self.plan = plan
        self.training = plan.training  # with a smaller batch where the device could not hold the planned one
        self.profile = location.profile
        self.prepared = Prepared.open(location.data_folder)
        self.shard = Shard.open(location.data_folder / "shards", location.shard)
        self.topology = Topology.from_json(state.topology) if state.topology else None
        self.model = self._load(state)
        self._shapes = _shapes(self.model)
        self._before = state
        self._factory = state.factory
        self._last_report = RoundReport.model_validate_json(state.report) if state.report else None
        self._fit: Fit | None = None
        self._filter: InstanceFilter | None = None
        self._epochs: list[TrainStats] = []
        self._pruning_macs = 0
        self._level_tries = 0

    @property
    def pruned(self) -> bool:
        """Whether channels have been cut, in this round or before."""
        return self.topology is not None

    @property
    def steps(self) -> int:
        """Optimizer steps of this round's training so far."""
        return sum(stats.steps for stats in self._epochs)

    @property
    def data_tie(self) -> float:
        """0..1 from the labels of the training data: where availability is tied to data, this is the tie."""
        labels = self.shard.labels("train")
        return float(labels.mean()) / max(1, self.shard.num_classes - 1) if len(labels) else 0.0

    def seed(self, purpose: str, *parts: int) -> int:
        """The seed of one purpose in this (run, client, round)."""
        return derive_seed(self.plan.seed, self.client, self.plan.round, purpose, *parts)

    def prune(self, criterion: Criterion | None = None) -> Found:
        """Cut the network to `training.pruning.level`, or to the level it finds, with this client's own data in view.

        `criterion` is one of your own (docs/pruning.md) in place of `training.pruning.criterion`; looking at a sample
        is charged for it as for taylor. Returns the level and, where it was searched for, the levels tried.
        """
        name = self.training.pruning.criterion if criterion is None else "taylor"
        criterion = remembered(criterion or CRITERIA[name])
        found = find_level(
            self.model,
            self.training.pruning,
            criterion=criterion,
            example_input=self._example(),
            batch_size=self._batch_size,
            memory_bytes=self.profile.memory_bytes,
            peak_bytes=lambda model: peak_bytes(
                model, self.training, self._batch_size, self.prepared.input_shape
            ),
            dense_macs=self.prepared.macs_training,
            accuracy=lambda model: self.evaluate("validation", model).accuracy,
            retrain=self._retrained_accuracy,
            batches=partial(self._ranking_batches, name),
            seed=self.seed("prune"),
        )
        self._level_tries = found.tries
        self._cut(found.level, criterion, self._ranking_batches(name))
        return found

    def instance_filter(self) -> InstanceFilter | None:
        """The filter that `training.instance_filter` names, with what it learnt in earlier rounds; None: none."""
        choice = self.training.instance_filter
        channels, *image_size = self.prepared.input_shape
        made = make_filter(
            **choice.model_dump(),
            in_channels=channels,
            image_size=tuple(image_size),
            seed=derive_seed(self.plan.seed, self.client, "instance_filter"),
        )
        return self._adopted(made)

    def _adopted(self, instance_filter: InstanceFilter | None) -> InstanceFilter | None:
        """With what it learnt in earlier rounds; what it learns now stays when the round ends."""
        if instance_filter is not None and instance_filter is not self._filter:
            self._filter = instance_filter
            if self._before.instance_filter:
                instance_filter.load_state_dict(self._before.instance_filter)
        return instance_filter

    def error_maps(self) -> ErrorMapPruner | None:
        """The error-map pruner that `training.error_maps` describes; None where it keeps everything."""
        choice = self.training.error_maps
        if choice.keep == 1:
            return None
        pruner = ErrorMapPruner(self.model, **choice.model_dump(), seed=self.seed("error_maps"))
        pruner.epoch = (self.plan.round - 1) * self.training.epochs  # `alternate` goes on from round to round
        return pruner

    def quantization(self) -> Quantization | None:
        """The quantised training that `training.quantization` describes; None: 32-bit floats."""
        choice = self.training.quantization
        if choice is None:
            return None
        return Quantization(self.model, **choice.model_dump(), seed=self.seed("quantization"))

    def train(
        self,
        *,
        instance_filter: InstanceFilter | None = None,
        error_maps: ErrorMapPruner | None = None,
        quantization: Quantization | None = None,
    ) -> None:
        """`training.epochs` local epochs of SGD over the training part of the shard, as far as memory allows.

        A filter may be one of your own; what it learns is kept from round to round.
        Raises DeviceFailure where the plan does not fit and may not be shrunk, or where the loss diverges.
        """
        self._fit_to_memory()
        self._adopted(instance_filter)
        methods = {"instance_filter": instance_filter, "error_maps": error_maps, "quantization": quantization}
        for stats in self._sgd(self.model, "shuffle", **methods):
            if stats.samples_kept and not math.isfinite(stats.loss):
                raise DeviceFailure(
                    Status.DIVERGED, f"loss {stats.loss} in local epoch {len(self._epochs) + 1}"
                )
            self._epochs.append(stats)

    def report(self) -> RoundReport:
        """Evaluate on the client's validation and test data and say what the round brought and cost.

        UserError where `model` is no longer of the shapes that the device loaded or pruned.
        """
        self._require_own_shapes()
        total = sum(self._epochs, start=TrainStats())
        validation, test = self.evaluate("validation"), self.evaluate("test")
        return RoundReport(
            round=self.plan.round,
            client=self.client,
            samples_seen=total.samples_seen,
            samples_kept=total.samples_kept,
            macs_done=total.macs_done + self._pruning_macs,
            macs_dense=total.samples_seen * self.prepared.macs_training,
            macs_filter=total.macs_filter,
            bit_operations=total.bit_operations,
            train_loss=finite(total.loss),
            epoch_loss=[finite(stats.loss) for stats in self._epochs[:64]],
            validation_correct=validation.correct,
            validation_count=validation.count,
            test_correct=test.correct,
            test_count=test.count,
            **self._factory_answers().tallies(test.right_N),
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            parameters_dense=self.prepared.parameters,
            level_tries=self._level_tries,
            **self._memory_figures(),
            wall_s=time.perf_counter() - self._started,
        )

    def state_after(self, report: RoundReport, charge: Charge) -> DeviceState:
        """What the device keeps of this round."""
        return DeviceState(
            round=self.plan.round,
            topology=self.topology.to_json() if self.topology else None,
            model=self.model.state_dict(),
            instance_filter=self._filter.state_dict() if self._filter else self._before.instance_filter,
            factory=self._factory,
            report=report.model_dump_json(),
            charge=charge,
        )

    def evaluate(
        self, split: str, model: nn.Module | None = None, classes: Sequence[int] | None = None
    ) -> Evaluation:
        """Count right answers on one part of the shard: train, validation or test; `classes`: among these alone."""
        model = model or self.model
        order = fast_order(model, EVALUATION_BATCH, self.prepared.input_shape)
        return evaluate(model, self.shard.batches(split, EVALUATION_BATCH, order=order), classes=classes)

    def _cut(self, level: float, criterion: str | Criterion, batches: Batches) -> None:
        self.topology = prune(
            self.model,
            level,
            example_input=self._example(),
            criterion=criterion,
            batches=batches,
            seed=self.seed("prune"),
            **self.training.pruning.cut,
        )
        self._shapes = _shapes(self.model)

    def _require_own_shapes(self) -> None:
        """Weights are the program's to change; a network of other shapes could not be loaded in the next round."""
        now = _shapes(self.model)
        if now != self._shapes:
            odd = min(name for name in now | self._shapes if now.get(name) != self._shapes.get(name))
            raise UserError(
                f"device.model is not of the shapes that the device loaded or pruned (at {odd}): change its weights "
                "only, and cut channels with device.prune(), which takes a criterion of your own"
            )

    def _example(self) -> torch.Tensor:
        return torch.zeros(1, *self.prepared.input_shape)

    def _samples(self) -> int:
        """Training instances at hand; a device without any has nothing to do in a round."""
        if not self.shard.count("train"):
            raise DeviceFailure(Status.NO_TRAINING_DATA)
        return self.shard.count("train")

    @property
    def _batch_size(self) -> int:
        return min(self.training.batch_size, self._samples())

    def _ranking_batches(self, criterion: str) -> Iterator[Batch]:
        """Training data drawn for a criterion to look at; what that criterion computes on them is counted."""
        table = count_macs(self.model, self.prepared.input_shape)
        gates = table.forward + table.error_propagation  # taylor's: no weight gradients
        cost = {"taylor": gates, "activation": table.forward}.get(criterion, 0)
        left = self.training.pruning.ranking_samples
        for x_BCHW, y_B in self._batches(self._order(self.model), "prune"):
            x_BCHW, y_B = x_BCHW[:left], y_B[:left]
            self._pruning_macs += cost * len(y_B)
            yield x_BCHW, y_B
            left -= len(y_B)
            if not left:
                return

    def _retrained_accuracy(self, pruned: nn.Module) -> float:
        """Validation accuracy after `training.epochs` of plain SGD: a try of the search, whose cost counts."""
        for stats in self._sgd(pruned, "search"):
            self._pruning_macs += stats.macs_done
        return self.evaluate("validation", pruned).accuracy

    def _load(self, state: DeviceState) -> nn.Module:
        if not state.model:
            return self.prepared.factory_model()
        model = (
            self.topology.rebuild(self.prepared.build_model) if self.topology else self.prepared.build_model()
        )
        model.load_state_dict(state.model)
        return model

    def _sgd(self, model: nn.Module, purpose: str, **methods: Any) -> Iterator[TrainStats]:
        """Train `model`, epoch by epoch, with an optimizer of this round."""
        choice = self.training
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=choice.learning_rate,
            momentum=choice.momentum,
            weight_decay=choice.weight_decay,
        )
        order = self._order(model)
        for epoch in range(choice.epochs):
            yield train(model, self._batches(order, purpose, epoch), optimizer=optimizer, **methods)

    def _order(self, model: nn.Module) -> torch.memory_format:
        """Of training data in memory, in which `model` is fast."""
        return fast_order(model, self._batch_size, self.prepared.input_shape)

    def _batches(self, order: torch.memory_format, purpose: str, *parts: int) -> Iterator[Batch]:
        choice = self.training
        return self.shard.batches(
            "train",
            choice.batch_size,
            seed=self.seed(purpose, *parts),
            augment=None if choice.augment == "none" else choice.augment,
            order=order,
        )

    def _fit_to_memory(self) -> None:
        """Shrink the plan to the device's memory, or decline the round, as `limits` say; both leave a line behind."""
        self._fit = fit_to_memory(
            self.model,
            self.training,
            self.plan.limits,
            self.profile,
            input_shape=self.prepared.input_shape,
            samples=self._samples(),
            known_bytes=self._known_need(),
            who=f"client {self.client}, device {self.profile.name!r}",
        )
        if not self._fit.fits:
            raise DeviceFailure(Status.DOES_NOT_FIT, self._fit.line)
        self.training = self.training.model_copy(update={"batch_size": self._fit.batch_size})
        if self._fit.level:
            name = self.training.pruning.criterion
            self._cut(self._fit.level, name, self._ranking_batches(name))

    def _memory_figures(self) -> dict[str, int]:
        if self._fit is None:  # a program that did not train
            return {}
        return {
            "batch_size": self._fit.batch_size,
            "memory_bytes": self._fit.need_bytes,
            "memory_asked_bytes": self._fit.asked_bytes,
            "memory_limit_bytes": self._fit.have_bytes,
        }

    def _known_need(self) -> int | None:
        """What the last round found, where the network still has the shape it had then."""
        same_shape = self._before.topology == (self.topology and self.topology.to_json())
        return self._last_report.memory_asked_bytes if self._last_report and same_shape else None

    def _factory_answers(self) -> FactoryAnswers:
        """Asked once and kept in the device's state, as neither the factory model nor the shard changes."""
        answers = FactoryAnswers.kept(self._factory, self.shard.count("test"))
        if answers is None:
            model, own = self.prepared.factory_model(), sorted(set(self.shard.labels("train").tolist()))
            right, told = (self.evaluate("test", model, classes) for classes in (None, own))
            answers = FactoryAnswers(right.right_N, told.right_N)
            self._factory = answers.tensors()
        return answers


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
