"""A device's training in one round: fitted to its memory, epoch by epoch, every step counted."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import nn

from fedge.data.shard import Batch
from fedge.data.transform import Transform
from fedge.device.adaptation.head import HeadTraining
from fedge.device.budget.clock import Work, round_cost, spread
from fedge.device.budget.pace import Pace
from fedge.device.contrast.learner import Learner, kept_state, learner_of, require_no_labels
from fedge.device.contrast.memory import contrast_fit
from fedge.device.contrast.probe import probe
from fedge.device.early_exits.personal import Personal, personal_of, require_none_beside
from fedge.device.memory.demand import fit_to_memory, peak_bytes, state_copies
from fedge.device.memory.fitting import Fit
from fedge.device.methods import MakeOptimizer, filter_word, made_for, optimizer_word, score_word
from fedge.device.own.loop import Count
from fedge.device.own.parts import loss_word, require_not_negative, require_transform, with_own
from fedge.device.pruning import Cutter
from fedge.device.round import Round
from fedge.device.time.pricing import learnt_s
from fedge.errors import UserError
from fedge.protocol import DeviceFailure, Status
from fedge.protocol.report import CONTRAST, OWN, one_word
from fedge.scenario.contrast import Contrast
from fedge.scenario.fleet import HOUR_S
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.instance_filter.filters import InstanceFilter
from fedge.training.quantization import Quantization
from fedge.training.stats import TrainStats
from fedge.training.task import OwnLoss, Task


class Trainer:
    """Trains the round's network. `epochs` is what ran so far, `fit` what memory said, `filter` what is to be kept."""

    def __init__(self, round: Round, cutter: Cutter) -> None:
        self.round = round
        self.epochs: list[TrainStats] = []
        self.fit: Fit | None = None
        self.filter: InstanceFilter | None = None
        self._cutter = cutter
        self._copies = 0
        self._learner: Learner | None = None
        self._running = TrainStats()  # of the epoch that is under way
        self._ran: dict[str, set[str]] = {
            field: set() for field in ("instance_filter", "error_maps", "optimizer", "what", "loss")
        }

    @property
    def total(self) -> TrainStats:
        """All epochs together."""
        return sum(self.epochs, start=TrainStats())

    @property
    def ran(self) -> dict[str, str]:
        """The names of what really trained, by report field."""
        return {field: one_word(words) for field, words in self._ran.items()}

    def adopted(self, instance_filter: InstanceFilter | None) -> InstanceFilter | None:
        """With what it learnt in earlier rounds; what it learns now stays when the round ends."""
        if instance_filter is not None and instance_filter is not self.filter:
            self.filter = instance_filter
            if self.round.before.instance_filter:
                instance_filter.load_state_dict(self.round.before.instance_filter)
        return instance_filter

    def train(
        self,
        make_optimizer: MakeOptimizer | None,
        instance_filter: InstanceFilter | None,
        error_maps: ErrorMapPruner | None,
        quantization: Quantization | None,
        loss: OwnLoss | None = None,
        transform: Transform | None = None,
    ) -> None:
        """`training.epochs` local epochs with these methods; by `loss` and `transform` in place of the settings'."""
        network = self.round.network
        self.round.require_counted()
        task = with_own(self.round.task, loss)
        require_transform(transform)
        make = make_optimizer or self.round.methods.optimizer
        if self.round.training.contrast is not None:
            require_no_labels(instance_filter, quantization, loss, transform)
            self._by_contrast(self.round.training.contrast, make, error_maps)
            return
        if self.round.idle or self._head_stays(instance_filter, error_maps, quantization, transform):
            return
        personal = personal_of(self.round)
        if personal is not None:
            require_none_beside(instance_filter, error_maps, quantization, loss)
        with self.round.uncounted():
            whole = None if personal is None else self._prepare_exits(personal, make, transform)
            self._fit_to_memory(made_for(network.model, make))
            if whole is not None and self.fit is not None:
                self.fit = dataclasses.replace(
                    self.fit, need_bytes=max(self.fit.need_bytes, whole.need_bytes)
                )
            self.adopted(instance_filter)
            optimizer = made_for(network.model, make)
            self._say(
                instance_filter=filter_word(instance_filter),
                error_maps=score_word(error_maps),
                optimizer=optimizer_word(optimizer),
                what=network.what_word(optimizer),
                loss=loss_word(task),
            )
            methods: dict[str, Any] = {
                "instance_filter": instance_filter,
                "error_maps": error_maps,
                "quantization": quantization,
            }
            if self._pace is not None:
                methods |= {"within": self._pace.within, "told": self._tell}
            if personal is None or personal.trains:
                self._take_epochs(self._planned_epochs(optimizer, task, transform, methods))
            if personal is not None:
                personal.choose_thresholds()
        network.accept()

    def _planned_epochs(
        self,
        optimizer: torch.optim.Optimizer,
        task: Task,
        transform: Transform | None,
        methods: dict[str, Any],
    ) -> Iterator[TrainStats]:
        """Of the network, or of its head on features."""
        local, model = self.round.local, self.round.network.model
        head = None if self.round.training.source is None else HeadTraining(self.round)
        if head is not None:
            model, methods = head.head, methods | {"epoch_of": head.epoch}
        for stats in local.epochs(model, optimizer, "shuffle", task=task, transform=transform, **methods):
            yield stats + (TrainStats() if head is None else head.made())
        if head is not None:
            self.round.head_was_trained()

    def _head_stays(self, *brought: object) -> bool:
        """Whether the head is trained on features, and the label prior has not moved enough for that. UserError for
        methods that a program brings and that want more of the network than its head."""
        training = self.round.training
        if training.source is None:
            return False
        if any(method is not None for method in brought):
            raise UserError(
                f"device.train: training.source is {training.source!r}, and features go through the head alone: leave "
                "instance_filter, error_maps, quantization and transform out"
            )
        prior, least = self.round.label_prior, training.adaptation.moved
        return prior is not None and least > 0 and prior.moved <= least

    def _take_epochs(self, epochs: Iterator[TrainStats]) -> None:
        for stats in epochs:
            require_not_negative(stats.loss)
            if stats.samples_kept and not math.isfinite(stats.loss):
                raise DeviceFailure(
                    Status.DIVERGED, f"loss {stats.loss} in local epoch {len(self.epochs) + 1}"
                )
            self.epochs.append(stats)
            self._running = TrainStats()

    def _prepare_exits(
        self, personal: Personal, make: MakeOptimizer, transform: Transform | None
    ) -> Fit | None:
        """The person's prior with the trunk that will stand still, and how far a training pass of the exits goes.

        Before that the whole network is trained, where it has just been cut and is to be; returns what that asked of
        memory.
        """
        model, fit = personal.model, None
        if personal.retrains:
            model.thaw_trunk()
            model.whole = True
            self._fit_to_memory(made_for(model, make), may_prune=False)
            fit, epochs = self.fit, personal.exits.retrain_epochs
            local, optimizer = self.round.local, made_for(model, make)
            how: dict[str, Any] = {
                "task": local.whole_task,
                "transform": transform,
                "last": epochs,
                "of": epochs,
            }
            self._take_epochs(local.epochs(model, optimizer, "retrain", **how))
            model.freeze_trunk()
        self.epochs.append(personal.find_prior())
        model.whole = personal.exits.needs_teacher
        return fit

    def _by_contrast(self, choice: Contrast, make: MakeOptimizer, error_maps: ErrorMapPruner | None) -> None:
        """Without labels from what came of the stream, then the head on a few of them."""
        round, model = self.round, self.round.network.model
        learner = self._learner = learner_of(round, choice)
        with round.uncounted():
            with learner.projecting():
                optimizer = made_for(model, make)
            self._copies = state_copies(optimizer)
            self.fit = self._fit_of_contrast(choice)
            with learner.projecting():
                self._say(
                    error_maps=score_word(error_maps),
                    optimizer=optimizer_word(optimizer),
                    what=round.training.what if isinstance(round.training.what, str) else OWN,
                    loss=CONTRAST,
                )
                stats = learner.learn(optimizer, error_maps, self._pace, self._tell)
            if stats.samples_kept and not math.isfinite(stats.loss):
                raise DeviceFailure(Status.DIVERGED, f"loss {stats.loss} in learning by contrast")
            self._running = TrainStats()
            self.epochs += [stats, probe(round, choice.labels, choice.buffer)]
        round.network.accept()

    def _fit_of_contrast(self, choice: Contrast) -> Fit:
        round = self.round
        decided = contrast_fit(
            round.network.model,
            round.training,
            choice,
            round.plan.limits,
            round.simulated.profile,
            shape=round.prepared.input_shape,
            classes=round.prepared.num_classes,
            copies=self._copies,
            who=self._who,
        )
        if not decided.fits:
            raise DeviceFailure(Status.DOES_NOT_FIT, decided.line)
        return decided

    @property
    def contrast_state(self) -> dict[str, torch.Tensor]:
        """What learning by contrast goes on from in the next round; as it was where this one had none of it."""
        if self._learner is not None:
            return self._learner.state()
        return kept_state(self.round.before.stream)

    def _tell(self, stats: TrainStats) -> None:
        self._running += stats

    @cached_property
    def _pace(self) -> Pace | None:
        """Of a stream that does not wait: until the next round begins. None: training takes what it takes."""
        stream, hours = self.round.simulated.stream, self.round.simulated.availability.round_every_h
        return Pace(hours * HOUR_S, self._compute_s) if stream is not None and stream.realtime else None

    def _compute_s(self) -> float:
        """Virtual seconds that this round's arithmetic has taken so far."""
        round, simulated = self.round, self.round.simulated
        done = self.total + self._running
        macs, steps = done.macs_done + self._cutter.macs + round.prior_macs, done.steps
        if round.count is not None:
            macs, steps = macs + round.count.macs, steps + round.count.steps
        macs += round.intake.watch.macs if round.intake else 0
        work = Work(
            macs=macs,
            steps=steps,
            memory_bytes=self.fit.need_bytes if self.fit else 0,
            received_bytes=0,
            sent_bytes=0,
            learnt_s=self.learnt_s(macs),
        )
        slowness = spread(simulated.clock, seed=simulated.seed, client=round.client, round=round.plan.round)
        return round_cost(simulated.profile, work, simulated.clock, spread=slowness).compute_s

    def learnt_s(self, macs: int) -> float | None:
        """Seconds that `macs` of this round take by the profile's fingerprint; None: it has none."""
        round = self.round
        return learnt_s(
            round.simulated.profile,
            round.network.model,
            round.prepared.input_shape,
            macs=macs,
            stats=self.total + self._running,
            batch_size=round.batch_size,
        )

    def retrained_accuracy(self, pruned: nn.Module) -> float:
        """Validation accuracy after `training.epochs` by the settings' optimizer: a try of the search, which counts."""
        local = self.round.local
        for stats in local.epochs(pruned, local.optimizer(pruned), "search"):
            self._cutter.macs += stats.macs_done
        return self.round.evaluate("validation", pruned).accuracy

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The mini-batches that `train` takes in its local epoch of that number, from 0."""
        if self.round.count is not None:
            self.round.count.new_epoch()
        batches = self.round.batches(self.round.network.model, "shuffle", epoch)
        yield from batches if self._pace is None else self._pace.within(batches)

    @contextmanager
    def counted(self, optimizer: torch.optim.Optimizer | MakeOptimizer | None) -> Iterator[Count]:
        """Count what a program does with the network inside."""
        round = self.round
        if round.count is not None:
            raise UserError("device.counted() is entered already; leave it before entering it again")
        round.require_counted()
        if not (optimizer is None or isinstance(optimizer, torch.optim.Optimizer)):
            optimizer = made_for(round.network.model, optimizer)
        self._fit_to_memory(optimizer, may_prune=False)
        macs_before, kept_before = self.total.macs_done, self.total.samples_kept
        count = round.count = Count(round.network.model, self._require_memory, round.network.was_cut_away)
        try:
            with count.watching():
                yield count
        finally:
            round.count = None
        count.require_passes()
        self._take(count)
        trained = self.total.samples_kept > kept_before or not round.network.weights_changed
        if (trained and self.total.macs_done > macs_before) or not round.network.changed:
            round.network.accept()

    def _take(self, count: Count) -> None:
        epochs = count.epochs()
        self.epochs += epochs
        total = sum(epochs, start=TrainStats())
        if total.samples_kept < total.samples_seen:
            self._say(instance_filter=OWN)
        if total.samples_seen:
            self._say(
                optimizer=optimizer_word(count.optimizer) if count.optimizer else OWN,
                what=self.round.network.what_word(count.optimizer),
            )

    def _say(self, **words: str) -> None:
        for field, word in words.items():
            self._ran[field].add(word)

    def _fit_to_memory(self, optimizer: torch.optim.Optimizer | None, *, may_prune: bool = True) -> None:
        """Shrink the plan to the device's memory, or decline the round, as `limits` say; both leave a line behind."""
        round = self.round
        self._copies = round.training.optimizer.copies if optimizer is None else state_copies(optimizer)
        self.fit = fit_to_memory(
            round.network.model,
            round.training,
            round.plan.limits,
            round.simulated.profile,
            input_shape=round.prepared.input_shape,
            samples=round.samples,
            copies=self._copies,
            known_bytes=self._known_need(optimizer),
            may_prune=may_prune,
            task=round.task,
            who=self._who,
        )
        if not self.fit.fits:
            raise DeviceFailure(Status.DOES_NOT_FIT, self.fit.line)
        round.training = round.training.model_copy(update={"batch_size": self.fit.batch_size})
        if self.fit.level:
            self._cutter.cut_further(self.fit.level)

    def _require_memory(self, batch_size: int, optimizer: torch.optim.Optimizer | None) -> None:
        """In a loop of a program's own: does the device hold this batch, and this optimizer's state?"""
        copies = self._copies if optimizer is None else state_copies(optimizer)
        if self.fit is None or (batch_size <= self.fit.batch_size and copies == self._copies):
            return
        self._copies = copies
        round, fit = self.round, self.fit
        batch_size = max(batch_size, fit.batch_size)
        shape = round.prepared.input_shape
        model, training = round.network.model, round.training.model_copy(update={"source": None})
        peak = peak_bytes(model, training, batch_size, shape, copies, task=round.task)
        need = int(round.plan.limits.overhead * peak)
        if need > fit.have_bytes:
            raise DeviceFailure(
                Status.DOES_NOT_FIT,
                f"{self._who}: the loop needs {need / 1e6:.3g} MB with batches of {batch_size} and "
                f"{copies} copies of the weights in its optimizer, the device has {fit.have_bytes / 1e6:.3g} MB: "
                "take smaller batches, or device.counted(optimizer), which fits device.batches() to it",
            )
        self.fit = dataclasses.replace(fit, batch_size=batch_size, need_bytes=max(need, fit.need_bytes))

    def _known_need(self, optimizer: torch.optim.Optimizer | None) -> int | None:
        """What the last round found, where network, settings and optimizer are still what they were then."""
        if self.round.simulated.has_policy:
            return None
        before, now = self.round.before.topology, self.round.network.topology
        last = self.round.last_report
        word = self.round.training.optimizer.kind if optimizer is None else optimizer_word(optimizer)
        if last is None or last.word("optimizer") != word or before != (now and now.to_json()):
            return None
        if self.round.intake is not None and last.batch_size != self.round.batch_size:
            return None  # memory was not as full
        return last.memory_asked_bytes or None

    @property
    def _who(self) -> str:
        return f"client {self.round.client}, device {self.round.simulated.profile.name!r}"
