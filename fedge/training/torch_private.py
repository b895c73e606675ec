"""All of torch's private names that fedge uses: a torch update can break this file, and no other.

Tried with torch 2.13. What each is for stands beside it.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # shapes without storage
from torch.autograd.graph import Node
from torch.nn.modules import module as _module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]  # not in torch's stub
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter, tree_leaves  # the tensors in an operator's result

__all__ = [
    "BACKWARD_HOOKS",
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "FakeTensor",
    "FakeTensorMode",
    "InstanceNorm",
    "TorchDispatchMode",
    "children_of",
    "current_node",
    "graph_nodes",
    "has_forward_hooks",
    "has_parameters",
    "in_backward",
    "is_custom",
    "is_heard",
    "is_lazy",
    "is_node_of",
    "is_plain_operator",
    "modes_off",
    "next_node_number",
    "node_number",
    "operator_of",
    "padding_pairs",
    "parameters_of",
    "saves_specially",
    "storage_key",
    "tree_iter",
    "tree_leaves",
]

# Of any number of dimensions.
BatchNorm: TypeAlias = _BatchNorm
InstanceNorm: TypeAlias = _InstanceNorm
Conv: TypeAlias = _ConvNd
ConvTranspose: TypeAlias = _ConvTransposeNd

BACKWARD_HOOKS = ("_backward_hooks", "_backward_pre_hooks")  # of a module, in dictionaries

modes_off = _disable_current_modes
"""Context manager: a counter that the caller runs does not see what happens inside."""


def children_of(layer: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """By name, one that stands there twice twice."""
    return [(name, child) for name, child in layer._modules.items() if child is not None]


def parameters_of(layer: nn.Module) -> dict[str, nn.Parameter | None]:
    """The layer's very own; a parametrised weight is none."""
    return layer._parameters


def has_parameters(layer: nn.Module) -> bool:
    """Of its very own."""
    return any(parameter is not None for parameter in layer._parameters.values())


def padding_pairs(layer: _ConvNd) -> list[int]:
    """A convolution's padding as F.pad takes it."""
    return layer._reversed_padding_repeated_twice


def is_heard(layer: nn.Module) -> bool:
    """Whether a hook would see the layer called; one that stands aside (dry_run.py) needs the whole network alone."""
    every = layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks
    heard = (not getattr(hook, "stands_aside", False) for hooks in every for hook in hooks.values())
    return any(heard) or _module._has_any_global_hook()


def has_forward_hooks(layer: nn.Module) -> bool:
    """Whether something may change what goes into the layer or comes out of it."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def is_lazy(parameter: Tensor) -> bool:
    """Whether it has no shape before the first batch."""
    return isinstance(parameter, UninitializedTensorMixin)


def storage_key(tensor: Tensor) -> int:
    """The same for all views of one storage, while that is alive."""
    key: int = tensor.untyped_storage()._cdata
    return key


def operator_of(func: Any) -> Any:
    """An operator without its overload; a higher-order one is itself."""
    return getattr(func, "_overloadpacket", func)


def current_node() -> Any:
    """The node whose backward runs now; None outside of a backward pass."""
    return torch._C._current_autograd_node()


def in_backward() -> bool:
    """Whether autograd runs now."""
    return torch._C._current_graph_task_id() >= 0


def node_number(node: Any) -> int:
    """Nodes are numbered as they are made."""
    number: int = node._sequence_nr()
    return number


def next_node_number() -> int:
    """What the next node will be numbered: an operator's own is made before the operator runs."""
    number: int = torch._C._autograd._get_sequence_nr()
    return number


def saves_specially() -> bool:
    """Whether what is saved for backward goes through hooks now, as activation checkpointing's does."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def graph_nodes(output: Tensor) -> Iterator[Node]:
    """Every node behind `output`."""
    waiting, known = [output.grad_fn], set[Node]()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in known:
            known.add(node)
            yield node
            waiting += [before for before, _ in node.next_functions]


def is_custom(node: Any) -> bool:
    """Whether its backward is Python's, of a torch.autograd.Function."""
    return isinstance(node, torch.autograd.function.BackwardCFunction)


def is_node_of(node: Any, function: type[torch.autograd.Function]) -> bool:
    """Whether that function made the node."""
    return isinstance(node, function._backward_cls)


def is_plain_operator(func: Any) -> bool:
    """Whether an operator may be asked for the operators that it is made of."""
    return isinstance(func, torch._ops.OpOverload)
