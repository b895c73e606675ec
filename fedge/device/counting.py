"""A loop of one's own, counted from outside: by the network's forward passes and the optimizer's steps.

    forward                  samples * forward MACs                  every pass of the network inside
    error, weight gradient   samples * theirs                        each time that a backward pass reaches its output

so that a plain loop costs what `fedge.training.loop.train` says it does, and a pass without a gradient its forward.
Passes of a copy of the network made inside are counted too; of a layer called by itself, not.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fedge.device.methods import updates
from fedge.errors import UserError
from fedge.protocol import DeviceFailure, Status
from fedge.training.counting.dry_run import in_dry_run, stands_aside
from fedge.training.macs import MacTable, count_forward, count_macs
from fedge.training.stats import TrainStats

OnBatch = Callable[[int, torch.optim.Optimizer | None], None]

FLOAT_BIT_OPERATIONS = 32 * 32


class Count:
    """What a loop did so far. A program tells it of each step; it sees the passes for itself.

    on_batch: asked, before a pass that may be trained on, whether the device holds so many samples, and before an
    optimizer's first step whether it holds that optimizer's state; it raises DeviceFailure where not.
    """

    def __init__(self, model: nn.Module, on_batch: OnBatch) -> None:
        self.model = model
        self.optimizer: torch.optim.Optimizer | None = None
        self._on_batch = on_batch
        self._epochs = [TrainStats()]
        self._trained_on = [0]  # samples, per epoch, that went through the network forward and back
        self._unannounced_steps = 0
        self._largest = 0
        self._paused = False
        self._tables: dict[tuple[Any, ...], MacTable] = {}

    def step(self, *, seen: int, kept: int | None = None, loss: float | Tensor) -> None:
        """Say of one training step: of `seen` samples on offer `kept` (None: all) were trained on, at mean loss `loss`.

        UserError for counts that cannot be; DeviceFailure where the loss is not finite.
        """
        kept = seen if kept is None else kept
        if not 0 <= kept <= seen:
            raise UserError(f"count.step: kept is {kept} of seen {seen}; it must be 0 to seen")
        value = float(loss.detach().mean()) if isinstance(loss, Tensor) else float(loss)
        if kept and not math.isfinite(value):
            raise DeviceFailure(Status.DIVERGED, f"loss {value} in a counted step")
        by_hand = int(kept > 0 and not self._unannounced_steps)  # an update without a torch optimizer
        self._unannounced_steps = 0
        loss_sum = value * kept if kept else 0.0
        self._add(
            TrainStats(samples_seen=int(seen), samples_kept=int(kept), loss_sum=loss_sum, steps=by_hand)
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the network so far."""
        return sum(stats.macs_done for stats in self._epochs)

    def new_epoch(self) -> None:
        """What follows is another local epoch."""
        if self._trained_on[-1] or self._epochs[-1].samples_seen:
            self._epochs.append(TrainStats())
            self._trained_on.append(0)

    def epochs(self) -> list[TrainStats]:
        """Per local epoch. Where the program told of no sample, those that went through the network count."""
        return [
            stats if stats.samples_seen else stats + TrainStats(samples_seen=passed, samples_kept=passed)
            for stats, passed in zip(self._epochs, self._trained_on, strict=True)
            if stats != TrainStats()
        ]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count while inside."""

        @stands_aside
        def passed(model: nn.Module, inputs: Any, by_keyword: Any, output: Any) -> None:
            self._passed(inputs, by_keyword, output)  # a closure: a copy of the model keeps it, uncopied

        def stepping(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            self._stepping(optimizer)

        handles = [
            self.model.register_forward_hook(passed, with_kwargs=True),
            register_optimizer_step_pre_hook(stepping),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._paused = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Passes inside are counted by somebody else, or are the simulation's and not the device's."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def _passed(self, inputs: tuple[Any, ...], by_keyword: dict[str, Any], output: Any) -> None:
        if self._paused or in_dry_run():
            return
        x = next(_tensors((inputs, by_keyword)))
        looking = not (self.model.training or torch.is_grad_enabled())
        batch, table = len(x), self._table(x, count_forward if looking else count_macs)
        self._add(TrainStats(macs_forward=batch * table.forward))
        outputs = [value for value in _tensors(output) if value.requires_grad]
        if not outputs:
            return
        if batch > self._largest:
            self._largest = batch
            with self.paused():
                self._on_batch(batch, None)
        first: list[int] = []

        def went_back(index: int, _gradient: Tensor) -> None:
            if not first:  # of several outputs one stands for the pass
                first.append(index)
                self._trained_on[-1] += batch
            if first == [index]:
                self._add(
                    TrainStats(
                        macs_error_propagation=batch * table.error_propagation,
                        macs_weight_gradient=batch * table.weight_gradient,
                    )
                )

        for index, value in enumerate(outputs):
            value.register_hook(partial(went_back, index))

    def _stepping(self, optimizer: torch.optim.Optimizer) -> None:
        if self._paused or not updates(optimizer, self.model):
            return
        if optimizer is not self.optimizer:
            self.optimizer = optimizer
            with self.paused(), torch.enable_grad():
                self._on_batch(max(1, self._largest), optimizer)
        self._unannounced_steps += 1
        self._add(TrainStats(steps=1))

    def _table(self, x: Tensor, count: Callable[..., MacTable]) -> MacTable:
        """Per sample; anew where a program freezes or thaws weights, and for each size where that tells the cost."""
        frozen = tuple(parameter.requires_grad for parameter in self.model.parameters())
        key = count, tuple(x.shape[1:]), frozen
        if key not in self._tables:
            with self.paused(), torch.inference_mode(False):
                self._tables[key] = count(self.model, x.shape[1:], nested=True)
        if self._tables[key].per_instance:
            return self._tables[key]
        with self.paused(), torch.inference_mode(False):
            return count(self.model, x.shape[1:], len(x), nested=True)

    def _add(self, stats: TrainStats) -> None:
        self._epochs[-1] += replace(stats, bit_operations=FLOAT_BIT_OPERATIONS * stats.macs_done)


def _tensors(value: object) -> Iterator[Tensor]:
    """All that a network was given, or gave, however it is nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
