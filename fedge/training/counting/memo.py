"""What was counted of a model is counted once, as long as the model stays as it is."""

import functools
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Concatenate, ParamSpec, TypeVar

from torch import Tensor, nn

from fedge.training.counting.dry_run import require_shapes

P = ParamSpec("P")
R = TypeVar("R")

_SKIPPED = nn.Module().__dict__.keys() - {"_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks"}
"""What every module has and what does not change its products, its mode among it; children are seen on their own."""


def remembered(
    function: Callable[Concatenate[nn.Module, P], R],
) -> Callable[Concatenate[nn.Module, P], R]:
    """Of a function of a model and hashable arguments. A model whose layers, shapes, attributes or need of gradients
    changed is another one; its weights and modes do not matter."""
    known: weakref.WeakKeyDictionary[nn.Module, tuple[Hashable, dict[Hashable, R]]] = (
        weakref.WeakKeyDictionary()
    )

    @functools.wraps(function)
    def remember(model: nn.Module, /, *args: P.args, **kwargs: P.kwargs) -> R:
        require_shapes(model)
        now = _structure(model)
        if known.get(model, (None, {}))[0] != now:
            known[model] = now, {}
        results = known[model][1]
        key = args, tuple(kwargs.items())
        if key not in results:
            results[key] = function(model, *args, **kwargs)
        return results[key]

    return remember


def _structure(model: nn.Module) -> Hashable:
    return tuple(
        (
            name,
            type(layer),
            _parts({key: value for key, value in layer.__dict__.items() if key not in _SKIPPED}),
        )
        for name, layer in model.named_modules()
    )


def _parts(held: dict[Any, Any]) -> Hashable:
    return tuple(
        (str(key), _part(value)) for key, value in held.items() if not getattr(value, "stands_aside", False)
    )


def _part(value: Any) -> Hashable:
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, Tensor):
        return id(value), value.shape, value.dtype, value.device, value.requires_grad
    if isinstance(value, dict):
        return _parts(value)
    if isinstance(value, list | tuple):
        return tuple(_part(held) for held in value)
    return id(value)
