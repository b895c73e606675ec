"""Copies of a network to trace, rank and try cuts on, whatever hangs on its modules."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fedge.errors import UserError, is_out_of_memory


def spare_copy(model: nn.Module) -> nn.Module:
    """A deep copy, of which tensors that hang on a graph (kept features, a weight made from others) are cut loose.

    UserError names the attribute that cannot be copied.
    """
    try:
        spare: nn.Module = _copied(model)
        return spare
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"the network cannot be copied for pruning: {_culprit(model)} ({_line(error)}); "
            "set it to None before pruning"
        ) from error


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except RuntimeError:  # a tensor with a graph behind it, most likely
        with torch.no_grad(), _Loosening():
            return copy.deepcopy(value)


class _Loosening(TorchFunctionMode):
    """Tensor.__deepcopy__ refuses what has a graph behind it; its numbers are copied."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _culprit(model: nn.Module) -> str:
    for layer, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute == "_modules":
                continue
            try:
                _copied(value)
            except Exception:
                return (
                    f"attribute {attribute!r} of layer {layer!r}" if layer else f"its attribute {attribute!r}"
                )
    return "something in it"


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
