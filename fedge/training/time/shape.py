"""What there is to know of a training step before it runs: its layers' shapes, its products, its other operators.

Nothing is computed: one forward pass of a dry run gives the shapes, the MacTable the products. Of a network cut, frozen
or fed from a filter it is the step that really runs: its layers as they are, the batch that is left, the backward
products that are made.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fedge.training.counting.dry_run import explained, instances, on_fake_or_real, stand_in
from fedge.training.counting.formulas import operator_macs
from fedge.training.counting.memo import remembered
from fedge.training.macs import COUNTED, INSTANCES, count_macs, has_plain_layers, input_of, is_small
from fedge.training.torch_private import FakeTensorMode, TorchDispatchMode, tree_iter


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """A convolution or linear layer in a training step; numbers are of one instance and of all its calls together.

    groups: of channels (depthwise: as many as channels). kernel, read, written: places of the kernel, of the map that
    is read and of the one that is written, of a call; a linear layer has 1 of each. MACs are those of the MacTable.
    """

    in_channels: int
    out_channels: int
    groups: int
    kernel: int
    read: float
    written: float
    calls: int
    convolution: bool
    forward: int
    error_propagation: int
    weight_gradient: int

    @property
    def backward(self) -> int:
        """MACs of its two backward products."""
        return self.error_propagation + self.weight_gradient

    @property
    def width(self) -> int:
        """The narrower side of its matrix product: what a processor's vectors are filled with."""
        return min(self.in_channels // self.groups, self.out_channels)

    @property
    def maps(self) -> float:
        """Numbers that it reads and writes."""
        return self.calls * (self.in_channels * self.read + self.out_channels * self.written)


@dataclass(frozen=True, kw_only=True)
class StepShape:
    """A training step on `batch` instances; convolutions make the share `keep` of their backward products.

    batch: mean instances that are trained on, behind a filter; above 0. keep: 0..1, 1 without error-map pruning.
    operators, elements: of the forward pass, calls that are no views, and numbers per instance that those write which
    are no products (norms, activations, pooling, sums). loose: MACs per instance outside of layers that are known by
    shape (attention). parameters, trained: numbers, and those of them that are updated. Pictures lie
    in the order in memory that a device would give them (memory_format.py), in what is timed and in what is foreseen.
    """

    batch: float
    keep: float
    layers: tuple[LayerShape, ...]
    loose: int
    operators: int
    elements: float
    parameters: int
    trained: int

    def products(self, layer: LayerShape) -> float:
        """MACs that one of the layers makes in the step, forward and back."""
        return self.batch * (layer.forward + self.share_of(layer) * layer.backward)

    def share_of(self, layer: LayerShape) -> float:
        """Of a layer's backward products, those that are made."""
        return self.keep if layer.convolution else 1.0

    @property
    def macs(self) -> float:
        """Of the step."""
        return self.batch * self.loose + sum(map(self.products, self.layers))

    def on(self, share: float) -> "StepShape":
        """The step on that share of its batch."""
        return replace(self, batch=share * self.batch)

    def with_backward(self, macs: float) -> "StepShape":
        """The step whose backward pass makes `macs` in all: what error-map pruning left was counted."""
        pruned = sum(layer.backward for layer in self.layers if layer.convolution)
        whole = sum(layer.backward for layer in self.layers if not layer.convolution)
        keep = (macs / self.batch - whole) / pruned if pruned else 1.0
        return replace(self, keep=min(1.0, max(0.0, keep)))


def step_shape(model: nn.Module, input_shape: Sequence[int], batch: float, *, keep: float = 1.0) -> StepShape:
    """The step of `model` as it is (cut, frozen) on a batch of inputs [C, H, W].

    UserError for a network that cannot be counted, or cannot run.
    """
    found = _of_one(model, tuple(input_shape))
    return replace(found, batch=batch, keep=keep)


@remembered
def _of_one(model: nn.Module, input_shape: tuple[int, ...]) -> StepShape:
    seen = _seen(model, input_shape)
    table = count_macs(model, input_shape)
    layers = dict(model.named_modules())
    shapes = tuple(
        _layer_shape(layers[macs.name], seen.calls[macs.name], macs)
        for macs in table.layers
        if macs.name in seen.calls
    )
    parameters = list(model.parameters())
    return StepShape(
        batch=1,
        keep=1.0,
        layers=shapes,
        loose=table.training - sum(shape.forward + shape.backward for shape in shapes),
        operators=seen.operators,
        elements=seen.elements / INSTANCES,
        parameters=sum(parameter.numel() for parameter in parameters),
        trained=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    )


def _layer_shape(layer: Any, calls: Sequence["_Call"], macs: Any) -> LayerShape:
    convolution = not isinstance(layer, nn.Linear)
    return LayerShape(
        in_channels=layer.in_channels if convolution else layer.in_features,
        out_channels=layer.out_channels if convolution else layer.out_features,
        groups=layer.groups if convolution else 1,
        kernel=math.prod(layer.kernel_size) if convolution else 1,
        read=sum(call.read for call in calls) / len(calls),
        written=sum(call.written for call in calls) / len(calls),
        calls=len(calls),
        convolution=convolution,
        forward=macs.forward,
        error_propagation=macs.error_propagation,
        weight_gradient=macs.weight_gradient,
    )


@dataclass(frozen=True)
class _Call:
    """Places of an instance's map that were read and written."""

    read: float
    written: float


@dataclass
class _Seen:
    """Of one forward pass on INSTANCES."""

    calls: dict[str, list[_Call]]
    operators: int = 0
    elements: int = 0


def _seen(model: nn.Module, input_shape: Sequence[int]) -> _Seen:
    def run(fake: FakeTensorMode | None) -> _Seen:
        seen = _Seen({})
        with stand_in(model, fake), fake or nullcontext(), torch.no_grad():
            model.train()
            for name, layer in model.named_modules():
                if isinstance(layer, COUNTED):
                    layer.register_forward_hook(_watch(name, seen), with_kwargs=True)
            x = instances(model, input_shape, INSTANCES)
            with _Operators(seen):
                model(x)
        return seen

    with explained([INSTANCES, *input_shape]):
        return on_fake_or_real(run, fake=not (has_plain_layers(model) or is_small(model, input_shape)))


def _watch(name: str, seen: _Seen) -> Any:
    def watch(layer: Any, inputs: tuple[Tensor, ...], by_keyword: dict[str, Tensor], output: Tensor) -> None:
        x = input_of(inputs, by_keyword)
        inner, outer = (
            (layer.in_features, layer.out_features)
            if isinstance(layer, nn.Linear)
            else (layer.in_channels, layer.out_channels)
        )
        call = _Call(x.numel() / INSTANCES / inner, output.numel() / INSTANCES / outer)
        seen.calls.setdefault(name, []).append(call)

    return watch


class _Operators(TorchDispatchMode):
    """Counts operators that are no views, and what those write that make no products."""

    def __init__(self, seen: _Seen) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no annotations
        self._seen = seen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view or func.namespace == "prim" or func.__name__.startswith("empty"):
            return result
        self._seen.operators += 1
        if not operator_macs(func, args, kwargs or {}, result):
            tensors = [value for value in tree_iter(result) if isinstance(value, Tensor)]
            self._seen.elements += max((tensor.numel() for tensor in tensors), default=0)
        return result
