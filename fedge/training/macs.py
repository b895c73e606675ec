"""Multiply-accumulates (MACs) of a network's convolutions and linear layers, per layer and per instance.

    forward             = |output map| * |kernel|          |kernel| = c / groups * k_h * k_w  (linear: its inputs)
    error propagation   = forward, or 0 where the layer's input needs no gradient (the first layer)
    weight gradient     = forward, or 0 where the weight is frozen

A training step is the sum of the three (EIF + EMP, arXiv 2007.03213, section IV; THOP's FLOPs there are these MACs).
Element-wise work (norms, activations, pooling) is not counted; torch's FlopCounterMode, the judge in the tests, does
the same. What we cannot count is refused: a missing cost is an error, not a zero. So the table's forward pass is held
against that counter's formulas: they see every convolution and matrix product, functional ones too (`F.linear`, `@`).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fedge.errors import UserError

COUNTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_UNCOUNTABLE = (
    nn.modules.conv._ConvTransposeNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.Bilinear,
)


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
    """MACs of a network for one instance, layer by layer in the order of `named_modules`."""

    layers: tuple[LayerMacs, ...]

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

    def __add__(self, other: "BackwardCost") -> "BackwardCost":
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


def count_macs(model: nn.Module, input_shape: Sequence[int]) -> MacTable:
    """Count what one training step costs per instance of `input_shape` (C, H, W), by one forward pass of one instance.

    The instance has the dtype of the parameters. The model comes back as it was: modes, buffers, gradients and random
    state untouched. Raises UserError for a network with products whose cost is not known here.
    """
    refuse_uncountable(model)
    calls: dict[str, LayerMacs] = {}
    with ExitStack() as stack:
        for name, layer in model.named_modules():
            if isinstance(layer, COUNTED):
                hook = layer.register_forward_hook(partial(_record, calls, name), with_kwargs=True)
                stack.callback(hook.remove)
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.enable_grad())
        judge = stack.enter_context(_Judge())
        model(one_instance(model, input_shape))
    table = MacTable(tuple(calls.values()))
    if judge.flops != 2 * table.forward:
        raise UserError(
            f"a forward pass makes {judge.flops // 2} multiply-accumulates per instance by PyTorch's count, its "
            f"Conv1d, Conv2d, Conv3d and Linear layers {table.forward}: make every product in a layer of these kinds"
        )
    return table


def _record(
    calls: dict[str, LayerMacs],
    name: str,
    layer: nn.Module,
    inputs: tuple[Tensor, ...],
    by_keyword: dict[str, Tensor],
    output: Tensor,
) -> None:
    x = input_of(inputs, by_keyword)
    forward = output.numel() * kernel_macs(layer.weight)
    before = calls.get(name, LayerMacs(name=name, forward=0, error_propagation=0, weight_gradient=0))
    calls[name] = LayerMacs(
        name=name,
        forward=before.forward + forward,
        error_propagation=before.error_propagation + forward * x.requires_grad,
        weight_gradient=before.weight_gradient + forward * layer.weight.requires_grad,
    )


def input_of(inputs: tuple[Tensor, ...], by_keyword: dict[str, Tensor]) -> Tensor:
    """What a hook's layer was called with: PyTorch's own may be called as layer(input=x)."""
    return inputs[0] if inputs else by_keyword["input"]


class _Judge(TorchDispatchMode):
    """FLOPs of what runs inside, 2 per MAC, by FlopCounterMode's formulas, without its bookkeeping per module, which
    takes five times as long."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def refuse_uncountable(model: nn.Module) -> None:
    """Raise UserError for a layer with products that the table would miss."""
    for name, layer in model.named_modules():
        if isinstance(layer, _UNCOUNTABLE):
            raise UserError(
                f"layer '{name}' is a {type(layer).__name__}, whose multiply-accumulates are not counted; "
                f"counted are Conv1d, Conv2d, Conv3d and Linear: build the model from those"
            )


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
    parameter = next(model.parameters(), torch.empty(0))
    return torch.zeros(1, *shape, dtype=parameter.dtype, device=parameter.device)
