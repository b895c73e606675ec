"""Run a network once and see which of its channels meet: every element of every tensor carries its channel's slot.

A layer that pruning can cut reads slots and writes slots of its own. Everything between layers is seen operation by
operation, as PyTorch's dispatcher calls them, and moves the labels as it moves the numbers (`rules.py`). What is not
understood keeps its channels, and the rest of the network stays free.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedge.training.macs import input_of
from fedge.training.pruning.coupling import INPUT, OUTPUT, Slots
from fedge.training.pruning.layers import channel_axis, cuttable_layers, is_stock
from fedge.training.pruning.tracing.labels import KEPT, Labels, distinct, storage_key
from fedge.training.pruning.tracing.rules import follow
from fedge.training.pruning.tracing.views import tensors_in
from fedge.training.torch_private import TorchDispatchMode, modes_off


class Trace(TorchDispatchMode):
    """What one or more passes of `model` tie together.

    `assumed`: slots whose ties hold if the code that joins them goes by the widths that it meets (`x.chunk(2, 1)`)
    and do not if it goes by a number (`x.split(8, 1)`); the dispatcher sees the same, so it must be tried.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.slots, self.labels = Slots(model), Labels()
        self.assumed: dict[bytes, tuple[str, Tensor]] = {}
        self.kept: dict[str, str] = {}
        self.runs: list[
            list[Any]
        ] = []  # of each pass, the names of its layers and what is called between them
        self._model = model
        self._inside: list[Any] = []  # of the layers that run now, what hides their operations
        self._following = True
        self._stock = {name: is_stock(layer) for name, layer in cuttable_layers(model).items()}
        self._owners = {
            storage_key(tensor): name if name in self.slots.shapes else None
            for name, module in model.named_modules()
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
        }

    def run(self, x_BCHW: Tensor) -> Any:
        """One pass in the model's present mode; its input and output keep their channels."""
        self.runs.append([])
        self._following = True
        self.labels.put(x_BCHW, torch.full(x_BCHW.shape, KEPT, dtype=torch.int32))
        with torch.no_grad(), self, self._at_layers():
            output = self._model(x_BCHW)
        for tensor in tensors_in(output):
            label = self.labels.of(tensor)
            if label is not None:
                self.slots.pin(distinct(label))
        return output

    def runs_alike(self, x_BCHW: Tensor) -> bool:
        """Whether a pass makes the same calls in the same order as the last one; it ties nothing."""
        self.runs.append([])
        self._following = False
        with torch.no_grad(), self, self._at_layers():
            self._model(x_BCHW)
        called = self.runs.pop()
        return called == self.runs[-1]

    def pin_idle_layers(self) -> None:
        """A layer that never ran may be used in a way that is not seen."""
        ran = {name for run in self.runs for name in run if isinstance(name, str)}
        for name in self.slots.shapes.keys() - ran:
            self._pin_layer(name, "a use outside of its forward")

    def keep(self, operation: str, labels: list[Tensor]) -> None:
        """Pin what an operation mixes, and remember why."""
        for label in labels:
            slots = distinct(label)
            self.slots.pin(slots)
            for layer in self.slots.layers_of(slots):
                self.kept.setdefault(layer, operation)

    def assume(self, operation: str, label: Tensor) -> None:
        """Ties that must be tried."""
        slots = distinct(label).to(torch.int64)
        slots = slots[slots != KEPT]
        if len(slots):
            self.assumed.setdefault(slots.numpy().tobytes(), (operation, slots))

    def is_stored(self, tensor: Tensor) -> bool:
        """Whether the tensor is, or looks into, a parameter or buffer of the network."""
        return storage_key(tensor) in self._owners

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.runs[-1].append(func)
        if self._following:
            inputs = tensors_in((args, kwargs))
            for tensor in inputs:
                owner = self._owners.get(storage_key(tensor))
                if owner is not None:
                    self._pin_layer(owner, "a use outside of its forward")
            follow(self, func, args, kwargs, inputs, out)
        return out

    @contextmanager
    def _at_layers(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, layer in cuttable_layers(self._model).items():
                for register, hook in (
                    (layer.register_forward_pre_hook, self._enter),
                    (layer.register_forward_hook, self._leave),
                ):
                    stack.callback(register(partial(hook, name), with_kwargs=True).remove)
            try:
                yield
            finally:
                while self._inside:  # a layer that raised
                    self._inside.pop().__exit__(None, None, None)

    def _enter(
        self, name: str, layer: nn.Module, inputs: tuple[Any, ...], by_keyword: dict[str, Any]
    ) -> None:
        self._inside.append(modes_off())
        self._inside[-1].__enter__()
        self.runs[-1].append(name)
        if self._following:
            self._read(name, layer, inputs, by_keyword)

    def _read(self, name: str, layer: nn.Module, inputs: tuple[Any, ...], by_keyword: dict[str, Any]) -> None:
        x = input_of(inputs, by_keyword) if inputs or "input" in by_keyword else None
        slots = self.slots.of(name, INPUT)
        label = self.labels.of(x) if isinstance(x, Tensor) else None
        axis = channel_axis(layer)
        if len(self._inside) > 1 or label is None or not _carries(label, axis, len(slots)):
            self.keep(type(layer).__name__, [slots] if label is None else [slots, label])
            return
        label_CN = label.movedim(axis, 0).flatten(1) if label.dim() > 1 else label[:, None]
        first_C = label_CN[:, 0]
        if not torch.equal(label_CN, first_C[:, None].expand(label_CN.shape)):
            self.slots.tie(label_CN, first_C[:, None].expand(label_CN.shape))
        self.slots.tie(first_C, slots)
        if not self._stock[name]:
            self.assume(f"the forward of {type(layer).__name__}", slots)

    def _leave(
        self, name: str, layer: nn.Module, inputs: tuple[Any, ...], by_keyword: dict[str, Any], out: Any
    ) -> None:
        if self._following:
            self._write(name, layer, out)
        self._inside.pop().__exit__(None, None, None)

    def _write(self, name: str, layer: nn.Module, out: Any) -> None:
        slots, axis = self.slots.of(name, OUTPUT), channel_axis(layer)
        for tensor in tensors_in(out):
            if len(self._inside) > 1 or not isinstance(out, Tensor) or not _carries(out, axis, len(slots)):
                self.keep(type(layer).__name__, [slots])
                self.labels.put(tensor, torch.full(tensor.shape, KEPT, dtype=torch.int32))
                continue
            shape = [1] * tensor.dim()
            shape[axis] = -1
            self.labels.put(tensor, slots.to(torch.int32).view(shape).expand(tensor.shape))
            if not self._stock[name]:
                self.assume(f"the forward of {type(layer).__name__}", slots)

    def _pin_layer(self, name: str, operation: str) -> None:
        self.keep(operation, [self.slots.of(name, OUTPUT), self.slots.of(name, INPUT)])


def _carries(tensor: Tensor, axis: int, channels: int) -> bool:
    """Whether the tensor's axis is as long as the layer has channels."""
    return -tensor.dim() <= axis < tensor.dim() and tensor.shape[axis] == channels
