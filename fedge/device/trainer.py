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
from fedge.device.adaptation.head import epochs_of, head_stays
from fedge.device.budget.clock import Work, round_cost, spread
from fedge.device.budget.pace import Pace
from fedge.device.contrast.learner import Learner, kept_state, require_no_labels
from fedge.device.contrast.training import learn_by_contrast
from fedge.device.early_exits.personal import personal_of, require_none_beside
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
from fedge.protocol.report import OWN, one_word
from fedge.scenario.fleet import HOUR_S
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.instance_filter.filters import InstanceFilter
from fedge.training.instance_filter.first_exit import FirstExitFilter
from fedge.training.quantization import Quantization
from fedge.training.stats import TrainStats
from fedge.training.task import OwnLoss


class Trainer:
    """Trains the round's network. `epochs` is what ran so far, `fit` what memory said, `filter` what is to be kept."""

    def __init__(self, round: Round, cutter: Cutter) -> None:
        self.round = round
        self.epochs: list[TrainStats] = []
        self.fit: Fit | None = None
        self.filter: InstanceFilter | None = None
        self._cutter = cutter
        self.copies = 0
        self._learner: Learner | None = None
        self.running = TrainStats()  # of the epoch that is under way
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
        if (contrast := self.round.training.contrast) is not None:
            require_no_labels(instance_filter, quantization, loss, transform)
            self._learner = learn_by_contrast(self, contrast, make, error_maps)
            return
        if self.round.idle or head_stays(self.round, instance_filter, error_maps, quantization, transform):
            return
        personal = personal_of(self.round)
        if personal is not None:
            by_exit = isinstance(instance_filter, FirstExitFilter)
            require_none_beside(None if by_exit else instance_filter, error_maps, quantization, loss)
        with self.round.uncounted():
            whole = None if personal is None else personal.prepare(self, make, transform)
            self.fit_to_memory(made_for(network.model, make))
            if whole is not None and self.fit is not None:
                need_bytes = max(self.fit.need_bytes, whole.need_bytes)
                self.fit = dataclasses.replace(self.fit, need_bytes=need_bytes)
            self.adopted(instance_filter)
            optimizer = made_for(network.model, make)
            self.say(
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
            if self.pace is not None:
                methods |= {"within": self.pace.within, "told": self.tell}
            epochs = epochs_of(self.round, optimizer, task=task, transform=transform, **methods)
            if personal is None:
                self.take(epochs)
            else:
                personal.train(self, epochs)
                personal.choose_thresholds()
        network.accept()

    def take(self, epochs: Iterator[TrainStats]) -> None:
        """Run them, and keep what each has done; DeviceFailure where training diverged."""
        for stats in epochs:
            require_not_negative(stats.loss)
            if stats.samples_kept and not math.isfinite(stats.loss):
                raise DeviceFailure(
                    Status.DIVERGED, f"loss {stats.loss} in local epoch {len(self.epochs) + 1}"
                )
            self.epochs.append(stats)
            self.running = TrainStats()

    @property
    def contrast_state(self) -> dict[str, torch.Tensor]:
        """What learning by contrast goes on from in the next round; as it was where this one had none of it."""
        if self._learner is not None:
            return self._learner.state()
        return kept_state(self.round.before.stream)

    def tell(self, stats: TrainStats) -> None:
        """What the epoch under way has done since it last told."""
        self.running += stats

    @cached_property
    def pace(self) -> Pace | None:
        """Of a stream that does not wait: until the next round begins. None: training takes what it takes."""
        stream, hours = self.round.simulated.stream, self.round.simulated.availability.round_every_h
        return Pace(hours * HOUR_S, self._compute_s) if stream is not None and stream.realtime else None

    def _compute_s(self) -> float:
        """Virtual seconds that this round's arithmetic has taken so far."""
        round, simulated = self.round, self.round.simulated
        done = self.total + self.running
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
        round, contrast = self.round, self.round.training.contrast
        return learnt_s(
            round.simulated.profile,
            round.network.model,
            round.prepared.input_shape,
            macs=macs,
            stats=self.total + self.running,
            batch_size=round.batch_size if contrast is None else 2 * contrast.buffer,
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
        yield from batches if self.pace is None else self.pace.within(batches)

    @contextmanager
    def counted(self, optimizer: torch.optim.Optimizer | MakeOptimizer | None) -> Iterator[Count]:
        """Count what a program does with the network inside."""
        round = self.round
        if round.count is not None:
            raise UserError("device.counted() is entered already; leave it before entering it again")
        round.require_counted()
        if not (optimizer is None or isinstance(optimizer, torch.optim.Optimizer)):
            optimizer = made_for(round.network.model, optimizer)
        self.fit_to_memory(optimizer, may_prune=False)
        macs_before, kept_before = self.total.macs_done, self.total.samples_kept
        count = round.count = Count(round.network.model, self._require_memory, round.network.was_cut_away)
        try:
            with count.watching():
                yield count
        finally:
            round.count = None
        count.require_passes()
        self._take_count(count)
        trained = self.total.samples_kept > kept_before or not round.network.weights_changed
        if (trained and self.total.macs_done > macs_before) or not round.network.changed:
            round.network.accept()

    def _take_count(self, count: Count) -> None:
        epochs = count.epochs()
        self.epochs += epochs
        total = sum(epochs, start=TrainStats())
        if total.samples_kept < total.samples_seen:
            self.say(instance_filter=OWN)
        if total.samples_seen:
            self.say(
                optimizer=optimizer_word(count.optimizer) if count.optimizer else OWN,
                what=self.round.network.what_word(count.optimizer),
            )

    def say(self, **words: str) -> None:
        """Note what trains, by report field."""
        for field, word in words.items():
            self._ran[field].add(word)

    def fit_to_memory(self, optimizer: torch.optim.Optimizer | None, *, may_prune: bool = True) -> None:
        """Shrink the plan to the device's memory, or decline the round, as `limits` say; both leave a line behind."""
        round = self.round
        self.copies = round.training.optimizer.copies if optimizer is None else state_copies(optimizer)
        self.fit = fit_to_memory(
            round.network.model,
            round.training,
            round.plan.limits,
            round.simulated.profile,
            input_shape=round.prepared.input_shape,
            samples=round.samples,
            copies=self.copies,
            known_bytes=self._known_need(optimizer),
            may_prune=may_prune,
            task=round.task,
            who=self.who,
        )
        if not self.fit.fits:
            raise DeviceFailure(Status.DOES_NOT_FIT, self.fit.line)
        round.training = round.training.model_copy(update={"batch_size": self.fit.batch_size})
        if self.fit.level:
            self._cutter.cut_further(self.fit.level)

    def _require_memory(self, batch_size: int, optimizer: torch.optim.Optimizer | None) -> None:
        """In a loop of a program's own: does the device hold this batch, and this optimizer's state?"""
        copies = self.copies if optimizer is None else state_copies(optimizer)
        if self.fit is None or (batch_size <= self.fit.batch_size and copies == self.copies):
            return
        self.copies = copies
        round, fit = self.round, self.fit
        batch_size = max(batch_size, fit.batch_size)
        shape = round.prepared.input_shape
        model, training = round.network.model, round.training.model_copy(update={"source": None})
        peak = peak_bytes(model, training, batch_size, shape, copies, task=round.task)
        need = int(round.plan.limits.overhead * peak)
        if need > fit.have_bytes:
            raise DeviceFailure(
                Status.DOES_NOT_FIT,
                f"{self.who}: the loop needs {need / 1e6:.3g} MB with batches of {batch_size} and "
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
    def who(self) -> str:
        return f"client {self.round.client}, device {self.round.simulated.profile.name!r}"
