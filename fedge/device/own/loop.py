"""A loop of one's own, counted from outside: by the network's forward passes and the optimizer's steps.

    forward                  samples * forward MACs                  every pass of the network inside
    error, weight gradient   samples * theirs                        each time that a backward pass reaches its output

so that a plain loop costs what `fedge.training.loop.train` says it does, and a pass without a gradient its forward.
Passes of a copy of the network made inside are counted too, and those of a layer called by itself, from features that
were kept, say. A pass that goes by neither (functions on bare weights) is not seen; what it trains on is refused.
"""

import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from numbers import Integral
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
from fedge.training.torch_private import in_backward

OnBatch = Callable[[int, torch.optim.Optimizer | None], None]

FLOAT_BIT_OPERATIONS = 32 * 32


class Count:
    """What a loop did so far. A program tells it of each step; it sees the passes for itself.

    on_batch: asked, before a pass that may be trained on, whether the device holds so many samples, and before an
    optimizer's first step whether it holds that optimizer's state; it raises DeviceFailure where not.
    is_stale: whether a parameter was the model's before it was cut: an optimizer of it would train nothing.
    """

    def __init__(self, model: nn.Module, on_batch: OnBatch, is_stale: Callable[[Tensor], bool]) -> None:
        self.model = model
        self.optimizer: torch.optim.Optimizer | None = None
        self._on_batch = on_batch
        self._is_stale = is_stale
        self._epochs = [TrainStats()]
        self._trained_on: list[Counter[str]] = [
            Counter()
        ]  # samples that went forward and back, per epoch and layer
        self._unannounced_steps = 0
        self._largest = 0
        self._paused = False
        self._passing: list[
            nn.Module
        ] = []  # the network, or a layer called by itself; what it calls is its own
        self._went_through = 0  # samples, forward
        self._names = weakref.WeakKeyDictionary({layer: name for name, layer in model.named_modules()})
        self._tables: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], MacTable]] = (
            weakref.WeakKeyDictionary()
        )

    def step(self, *, seen: int, kept: int | None = None, loss: float | Tensor) -> None:
        """Say of one training step: of `seen` samples on offer `kept` (None: all) were trained on, at mean loss `loss`.

        UserError for counts that cannot be; DeviceFailure where the loss is not finite.
        """
        kept = seen if kept is None else kept
        for name, number in (("seen", seen), ("kept", kept)):
            if not isinstance(number, Integral):
                raise UserError(f"count.step: {name} is {number!r}; it must be a whole number of samples")
        if not 0 <= kept <= seen:
            raise UserError(f"count.step: kept is {kept} of seen {seen}; it must be 0 to seen")
        value = float(loss.detach().mean()) if isinstance(loss, Tensor) else float(loss)
        if kept and not math.isfinite(value):
            raise DeviceFailure(Status.DIVERGED, f"loss {value} in a counted step")
        if kept and value < 0:
            raise UserError(
                f"count.step: loss is {value:g}, and a report holds 0 to 1e6: tell a loss that is never negative, such "
                "as the cross-entropy"
            )
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

    @property
    def steps(self) -> int:
        """Updates so far."""
        return sum(stats.steps for stats in self._epochs)

    def new_epoch(self) -> None:
        """What follows is another local epoch."""
        if self._trained_on[-1] or self._epochs[-1].samples_seen:
            self._epochs.append(TrainStats())
            self._trained_on.append(Counter())

    def epochs(self) -> list[TrainStats]:
        """Per local epoch. Where the program told of no sample, those that went through the network count."""
        return [
            stats if stats.samples_seen else stats + TrainStats(samples_seen=passed, samples_kept=passed)
            for stats, passed in zip(self._epochs, map(_most, self._trained_on), strict=True)
            if stats != TrainStats()
        ]

    def require_passes(self) -> None:
        """UserError where more samples are said to be trained on than went through the network."""
        kept = sum(stats.samples_kept for stats in self._epochs)
        if kept > self._went_through:
            raise UserError(
                f"count.step: {kept} samples are said to be trained on and {self._went_through} went through "
                "device.model, so that for the others nothing was counted: inside device.counted(), call device.model, "
                "its layers, or copies of it made there"
            )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count while inside."""

        @stands_aside
        def entered(
            layer: nn.Module, inputs: Any
        ) -> None:  # closures: copies of the model keep them, uncopied
            if not self._aside and (not self._passing or layer is self._passing[-1]):
                self._passing.append(layer)

        @stands_aside
        def passed(layer: nn.Module, inputs: Any, by_keyword: Any, output: Any) -> None:
            if self._aside or not self._passing or layer is not self._passing[-1]:
                return
            self._passing.pop()
            self._passed(layer, inputs, by_keyword, output)

        def stepping(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            self._stepping(optimizer)

        handles: list[Any] = [register_optimizer_step_pre_hook(stepping)]
        for layer in self.model.modules():
            handles += [
                layer.register_forward_pre_hook(entered),
                layer.register_forward_hook(passed, with_kwargs=True, always_call=True),
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

    @property
    def _aside(self) -> bool:
        """Where a pass is no work of the loop's own; what is computed again in a backward pass is in the tables."""
        return self._paused or in_dry_run() or in_backward()

    def _passed(
        self, layer: nn.Module, inputs: tuple[Any, ...], by_keyword: dict[str, Any], output: Any
    ) -> None:
        tensors = [x for x in _tensors((inputs, by_keyword)) if x.dim()]
        if output is None or not tensors or not any(True for _ in layer.parameters()):
            return
        if layer is not self.model and len(tensors) > 1:
            raise UserError(
                f"device.counted(): a {type(layer).__name__} called by itself with {len(tensors)} tensors cannot be "
                "counted: call device.model, or its layers of one input"
            )
        looking = not (layer.training or torch.is_grad_enabled())
        batch, table = (
            len(tensors[0]),
            self._table(layer, tensors[0], count_forward if looking else count_macs),
        )
        self._went_through += batch
        self._add(TrainStats(macs_forward=batch * table.forward))
        outputs = [value for value in _tensors(output) if value.requires_grad]
        if not outputs:
            return
        whole = type(layer) is type(self.model)  # itself or a copy
        if whole and batch > self._largest:
            self._largest = batch
            with self.paused():
                self._on_batch(batch, None)
        self._listen(outputs, "" if whole else self._names.get(layer, ""), batch, table)

    def _listen(self, outputs: list[Tensor], name: str, batch: int, table: MacTable) -> None:
        """Count a backward pass each time that one reaches the outputs."""
        first: list[int] = []

        def went_back(index: int, _gradient: Tensor) -> None:
            if not first:  # of several outputs one stands for the pass
                first.append(index)
                self._trained_on[-1][name] += batch
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
        if self._paused:
            return
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if any(map(self._is_stale, held)):
            raise UserError(
                "device.counted(): the optimizer holds weights that the network had before it was cut, and would train "
                "nothing of what is left of them: make one from device.model.parameters() after the cut"
            )
        if not updates(optimizer, self.model):
            return
        if optimizer is not self.optimizer:
            self.optimizer = optimizer
            with self.paused(), torch.enable_grad():
                self._on_batch(max(1, self._largest), optimizer)
        self._unannounced_steps += 1
        self._add(TrainStats(steps=1))

    def _table(self, layer: nn.Module, x: Tensor, count: Callable[..., MacTable]) -> MacTable:
        """Per sample; anew where a program freezes or thaws weights, and for each size where that tells the cost."""
        frozen = tuple(parameter.requires_grad for parameter in layer.parameters())
        dtype = None if x.is_floating_point() else x.dtype
        how = {"nested": True, "error_of_input": x.requires_grad}
        key = count, tuple(x.shape[1:]), dtype, x.requires_grad, frozen
        tables = self._tables.setdefault(layer, {})
        with self.paused(), torch.inference_mode(False):
            if key not in tables:
                tables[key] = count(layer, x.shape[1:], None, dtype, **how)
            if tables[key].per_instance:
                return tables[key]
            return count(layer, x.shape[1:], len(x), dtype, **how)

    def _add(self, stats: TrainStats) -> None:
        self._epochs[-1] += replace(stats, bit_operations=FLOAT_BIT_OPERATIONS * stats.macs_done)


def _most(samples: Mapping[str, int]) -> int:
    """Layers called one by one see each sample once each."""
    return max(samples.values(), default=0)


def _tensors(value: object) -> Iterator[Tensor]:
    """All that a network was given, or gave, however it is nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
