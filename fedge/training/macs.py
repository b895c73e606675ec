"""Multiply-accumulates (MACs) of a network's training step, per layer and per instance.

A convolution or a linear layer costs

    forward             = |output map| * |kernel|          |kernel| = c / groups * k_h * k_w  (linear: its inputs)
    error propagation   = forward, or 0 where the layer's input needs no gradient (the first layer)
    weight gradient     = forward, or 0 where the weight is frozen

and a training step is the sum of the three (EIF + EMP, arXiv 2007.03213, section IV; THOP's FLOPs there are these
MACs). Everything else that multiplies (attention, recurrence, transposed convolutions, products outside of layers,
backward passes of one's own) is counted operator by operator, from one training step in training mode that leaves no
trace. Element-wise work (norms, activations, pooling) is not counted; torch's FlopCounterMode, the judge in
the tests, does the same. What cannot be counted is refused: a missing cost is an error, not a zero.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from fedge.training.counting.counter import ProductCounter, Products
from fedge.training.counting.dry_run import explained, instances, on_fake_or_real, stand_in
from fedge.training.counting.memo import remembered
from fedge.training.outputs import one_tensor
from fedge.training.torch_private import BatchNorm, FakeTensorMode, InstanceNorm, has_parameters, tree_iter

COUNTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
Counted = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
_WITHOUT_PRODUCTS = (BatchNorm, InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.PReLU)
SMALL = 1 << 27
"""Parameters times numbers in an instance, of a network that is counted by computing."""
INSTANCES = 2
"""Of the batch that is counted: with one alone, batch norm has no spread."""


@dataclass(frozen=True, kw_only=True)
class LayerMacs:
    """MACs of one layer for one instance; a layer called several times in a forward pass is summed."""

    name: str
    forward: int
    error_propagation: int
    weight_gradient: int

    @property
    def training(self) -> int:
        """Forward and backward together."""
        return self.forward + self.error_propagation + self.weight_gradient


@dataclass(frozen=True)
class MacTable:
    """MACs of a network for one instance, layer by layer in the order of their first product.

    Products outside of any layer are those of the module that makes them; the network itself is named "".
    per_instance: false where the cost of a mini-batch is not in proportion to its size (a product of two weights, made
    once a step); then the table holds for mini-batches of the size that was counted.
    """

    layers: tuple[LayerMacs, ...]
    per_instance: bool = True

    @property
    def forward(self) -> int:
        """One forward pass."""
        return sum(layer.forward for layer in self.layers)

    @property
    def error_propagation(self) -> int:
        """Products that carry the error back to the layers' inputs."""
        return sum(layer.error_propagation for layer in self.layers)

    @property
    def weight_gradient(self) -> int:
        """Products that make the weights' gradients."""
        return sum(layer.weight_gradient for layer in self.layers)

    @property
    def backward(self) -> int:
        """Error propagation and weight gradient."""
        return self.error_propagation + self.weight_gradient

    @property
    def training(self) -> int:
        """Forward and backward together."""
        return self.forward + self.backward


class BackwardCost(NamedTuple):
    """What backward passes cost in fact: MACs of the two products, and additions made to rank error maps."""

    error_propagation: int = 0
    weight_gradient: int = 0
    selection_adds: int = 0

    @property
    def macs(self) -> int:
        """Both products."""
        return self.error_propagation + self.weight_gradient

    def __add__(self, other: "BackwardCost") -> "BackwardCost":  # type: ignore[override]  # a sum, not a longer tuple
        return BackwardCost(
            self.error_propagation + other.error_propagation,
            self.weight_gradient + other.weight_gradient,
            self.selection_adds + other.selection_adds,
        )

    def __sub__(self, other: "BackwardCost") -> "BackwardCost":
        return self + BackwardCost(-other.error_propagation, -other.weight_gradient, -other.selection_adds)


def kernel_macs(weight: Tensor) -> int:
    """MACs that one element of a layer's output costs: c / groups * k_h * k_w, or a linear layer's inputs."""
    return weight.numel() // len(weight)


def count_macs(
    model: nn.Module,
    input_shape: Sequence[int],
    batch_size: int | None = None,
    dtype: torch.dtype | None = None,
    *,
    nested: bool = False,
    error_of_input: bool = False,
) -> MacTable:
    """Count what one training step costs per instance of `input_shape` (C, H, W).

    Counted is a step on zeros, of `dtype` or the parameters' own, in training mode: where products are those of
    convolutions and linear layers alone, its forward pass on two instances, else the whole step; without computing
    it, but for a small network and one that looks at its own numbers. `batch_size`: of a network that is not
    `per_instance`. `nested`: it may return several tensors, in tuples or dictionaries. `error_of_input`: the instances
    are made by other layers, which want their error. The model comes back as it was: modes, buffers, gradients, hooks
    and random state untouched.
    Raises UserError for a network that returns no tensor, that cannot run on such a batch, and for products in a
    number that is not known.
    """
    return _counted(model, batch_size, _Batch(tuple(input_shape), dtype, nested, error_of_input), "step")


def count_forward(
    model: nn.Module,
    input_shape: Sequence[int],
    batch_size: int | None = None,
    dtype: torch.dtype | None = None,
    *,
    nested: bool = False,
    error_of_input: bool = False,
) -> MacTable:
    """Count a forward pass in evaluation mode, which may do other things than one in training: no backward products.
    Otherwise as `count_macs`."""
    return _counted(model, batch_size, _Batch(tuple(input_shape), dtype, nested, error_of_input), "look")


@remembered
def _counted(model: nn.Module, batch_size: int | None, batch: "_Batch", part: "Part") -> MacTable:
    count = batch_size or INSTANCES
    if part == "look":
        run = _attempt(model, batch, count, "look", fake=not is_small(model, batch.shape))
    else:
        run = _training_step(model, batch, count)
    names = dict.fromkeys([*run.products.forward, *run.products.error_propagation])
    layers = [
        LayerMacs(
            name=name,
            forward=_share(run.products.forward, name, count),
            error_propagation=_share(run.products.error_propagation, name, count),
            weight_gradient=_share(run.products.weight_gradient, name, count),
        )
        for name in names
    ]
    return MacTable(tuple(layers), batch_size is None and _in_proportion(run, model, batch, count))


def _share(sums: dict[str, int], name: str, count: int) -> int:
    """Of one instance, to the nearest."""
    return (sums.get(name, 0) + count // 2) // count


class _Batch(NamedTuple):
    """What the instances of a batch are, whether they want their error, and whether several tensors may come out."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    nested: bool
    error_of_input: bool


Part = Literal["step", "forward", "look"]
"""Of training: forward and backward, or forward alone; or a forward pass in evaluation mode."""


class _Run(NamedTuple):
    """What was counted and how. plain: whether `planned` products say what a backward pass costs."""

    products: Products
    planned: Products
    plain: bool
    per_instance: bool
    part: Part
    fake: bool


def _training_step(model: nn.Module, of: _Batch, count: int) -> _Run:
    """By its forward pass alone where that tells all, which spares the time of a fake step."""
    if has_plain_layers(model):
        run = _attempt(model, of, count, "forward", fake=False)
        if run.plain:
            return run._replace(products=run.planned)
    return _attempt(model, of, count, "step", fake=not is_small(model, of.shape))


def is_small(model: nn.Module, shape: Sequence[int]) -> bool:
    """Whether computing it is sooner done than pretending to, which takes a tenth of a millisecond for an operator."""
    return sum(parameter.numel() for parameter in model.parameters()) * math.prod(shape) <= SMALL


def _in_proportion(run: _Run, model: nn.Module, of: _Batch, count: int) -> bool:
    """Whether twice the instances cost twice as much."""
    if run.per_instance:
        return True
    part: Part = "forward" if run.part == "step" else run.part
    twice = _attempt(model, of, 2 * count, part, fake=run.fake)
    return twice.products.forward == {name: 2 * macs for name, macs in run.products.forward.items()}


def has_plain_layers(model: nn.Module) -> bool:
    """Whether every parameter is one of a layer whose cost is known from its output."""
    return all(
        isinstance(layer, COUNTED + _WITHOUT_PRODUCTS) or not has_parameters(layer)
        for layer in model.modules()
    )


def _attempt(model: nn.Module, of: _Batch, count: int, part: Part, *, fake: bool) -> _Run:
    """UserError where the network cannot run."""
    with explained([count, *of.shape], "evaluation" if part == "look" else "training"):
        return on_fake_or_real(partial(_run, model, of, count, part), fake=fake)


def _run(model: nn.Module, of: _Batch, count: int, part: Part, fake: FakeTensorMode | None) -> _Run:
    with stand_in(model, fake), fake or nullcontext(), _plain_attention():
        model.train(part != "look")
        x = instances(model, of.shape, count, of.dtype).requires_grad_(of.error_of_input)
        counter = ProductCounter(model, x, COUNTED)
        try:
            with counter, torch.set_grad_enabled(part != "look"):
                output = _one_number(model(x), of.nested)
                if part == "step" and output.requires_grad:
                    output.backward()
        finally:
            counter.put_back_gradients()
        plain = counter.is_plain(output)
    return _Run(counter.products, counter.planned, plain, counter.per_instance, part, fake is not None)


def _one_number(output: object, nested: bool) -> Tensor:
    """That depends on all that a network returned."""
    if not nested:
        return one_tensor(output).sum()
    tensors = [part for part in tree_iter(output) if isinstance(part, Tensor) and part.is_floating_point()]
    return sum((part.sum() for part in tensors), start=torch.zeros(()))


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention in evaluation by the operators of training, not by one that does all of it at once."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def input_of(inputs: tuple[Tensor, ...], by_keyword: dict[str, Tensor]) -> Tensor:
    """What a hook's layer was called with: PyTorch's own may be called as layer(input=x)."""
    return inputs[0] if inputs else by_keyword["input"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (running statistics, no dropout) inside, every module's own mode back after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def one_instance(model: nn.Module, shape: Sequence[int]) -> Tensor:
    """Zeros [1, *shape], of the parameters' dtype and device."""
    return instances(model, shape, 1)
