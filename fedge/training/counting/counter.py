"""Counts the products of whatever runs inside it, layer by layer: forward, error propagation and weight gradient.

An operator belongs to the innermost layer that runs. In the backward pass it belongs to the layer whose operator made
the autograd node that runs; its products are a weight's gradient where the node's operands are made of parameters
alone, errors where they depend on the data, and half of each where it has both kinds. What a checkpoint computes again
is an error's, of the network itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fedge.training.counting.formulas import operator_macs
from fedge.training.torch_private import (
    TorchDispatchMode,
    current_node,
    graph_nodes,
    in_backward,
    is_custom,
    is_plain_operator,
    next_node_number,
    node_number,
    saves_specially,
    storage_key,
    tree_iter,
)


class _Origin(NamedTuple):
    """Of an autograd node: the layer, and which kinds of factors want a gradient."""

    layer: str
    weights: bool
    data: bool


@dataclass
class Products:
    """MACs by layer name."""

    forward: dict[str, int] = field(default_factory=dict)
    error_propagation: dict[str, int] = field(default_factory=dict)
    weight_gradient: dict[str, int] = field(default_factory=dict)


class ProductCounter(TorchDispatchMode):
    """Dispatch mode; `x` is the batch that the model runs on, `model` gives the layers' names.

    products: what ran. planned: the same as it follows from a forward pass alone, where `is_plain` says so of its
    output: every product is one of a layer of `kinds` and is differentiated by autograd's own rules.
    per_instance: whether each product was seen to be made for every instance of the batch.
    """

    def __init__(self, model: nn.Module, x: Tensor, kinds: tuple[type[nn.Module], ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no annotations
        self.products = Products()
        self.planned = Products(forward=self.products.forward)
        self.per_instance = True
        self._plain = True
        self._instances = len(x)
        self._stack: list[tuple[str, bool]] = [("", False)]
        self._origins: dict[int, _Origin] = {}
        self._data = {storage_key(x)}
        self._alive: list[Tensor] = [x]  # so that no key is given to another storage
        self._own = {id(parameter) for parameter in model.parameters()}
        self._strangers: list[tuple[Tensor, Tensor | None]] = []
        for name, layer in model.named_modules():
            layer.register_forward_pre_hook(self._enter(name, isinstance(layer, kinds)))
            layer.register_forward_hook(self._leave, always_call=True)

    def is_plain(self, output: Tensor) -> bool:
        """Whether the backward pass from `output` costs what was planned."""
        if not self._plain:
            return False
        nodes = list(graph_nodes(output))
        wanting = {number for number, origin in self._origins.items() if origin.weights or origin.data}
        return wanting <= {node_number(node) for node in nodes} and not any(map(is_custom, nodes))

    def _enter(self, name: str, counted: bool) -> Callable[..., None]:
        return lambda layer, inputs: self._stack.append((name, counted))

    def _leave(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        self._stack.pop()

    def depends_on_data(self, tensor: Tensor) -> bool:
        """Whether it was made of the batch, and not of parameters alone."""
        try:
            return storage_key(tensor) in self._data
        except NotImplementedError:  # a kind of tensor without storage
            return True

    def put_back_gradients(self) -> None:
        """Of parameters that the model uses without having them as its own."""
        for parameter, gradient in self._strangers:
            parameter.grad = gradient

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and is_plain_operator(func):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        operands = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
        result = func(*args, **kwargs)
        node = current_node() if in_backward() else None
        again = node is not None and len(self._stack) > 1  # a layer runs: a checkpoint's forward pass
        if node is None or again:
            self._follow(operands, result)
        macs = operator_macs(func, args, kwargs, result)
        if macs and node is None:
            self._count_forward(macs, operands)
        elif macs and again:
            self._wanting(operands)
            _add(self.products.error_propagation, "", macs)
        elif macs:
            self._count_backward(macs, node)
        return result

    def _follow(self, operands: list[Tensor], result: Any) -> None:
        for operand in operands:
            if isinstance(operand, nn.Parameter) and id(operand) not in self._own:
                self._own.add(id(operand))
                self._strangers.append((operand, operand.grad))
                operand.grad = None
        if any(self.depends_on_data(operand) for operand in operands):
            made = [value for value in tree_iter(result) if isinstance(value, Tensor)]
            self._alive += made
            self._data |= {storage_key(value) for value in made}

    def _wanting(self, operands: list[Tensor]) -> list[bool]:
        """Of the factors that want a gradient, whether they depend on the data; kept for the node to come."""
        factors = [operand for operand in operands if operand.dim() > 1 and operand.requires_grad]  # no bias
        wanting = [self.depends_on_data(factor) for factor in factors] if torch.is_grad_enabled() else []
        layer = self._stack[-1][0]
        self._origins[next_node_number() - 1] = _Origin(layer, False in wanting, True in wanting)
        return wanting

    def _count_forward(self, macs: int, operands: list[Tensor]) -> None:
        layer, counted = self._stack[-1]
        data = [operand for operand in operands if self.depends_on_data(operand)]
        wanting = self._wanting(operands)
        _add(self.products.forward, layer, macs)
        _add(self.planned.error_propagation, layer, macs * wanting.count(True))
        _add(self.planned.weight_gradient, layer, macs * wanting.count(False))
        self._plain &= counted and torch.is_grad_enabled() and not saves_specially()
        self.per_instance &= any(tensor.shape[:1] == (self._instances,) for tensor in data)

    def _count_backward(self, macs: int, node: Any) -> None:
        unknown = _Origin("", weights=False, data=True)
        layer, weights, data = self._origins.get(node_number(node), unknown)
        of_weights = (macs if not data else macs // 2) if weights else 0
        _add(self.products.weight_gradient, layer, of_weights)
        _add(self.products.error_propagation, layer, macs - of_weights)


def _add(sums: dict[str, int], layer: str, macs: int) -> None:
    sums[layer] = sums.get(layer, 0) + macs
