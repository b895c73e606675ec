"""What was counted of a model is counted once, as long as the model stays as it is.

And once for all models that are made alike of torch's and fedge's own layers: a device loads its network anew in every
round, and what those layers compute depends on their attributes alone.
"""

import functools
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from fedge.training.counting.dry_run import require_shapes

_MOST_ALIKE = 4096  # results, of a few numbers each

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
    alike: dict[Hashable, R] = {}

    @functools.wraps(function)
    def remember(model: nn.Module, /, *args: P.args, **kwargs: P.kwargs) -> R:
        require_shapes(model)
        now = _structure(model)
        if known.get(model, (None, {}))[0] != now:
            known[model] = now, {}
        results = known[model][1]
        key = args, tuple(kwargs.items())
        if key not in results:
            results[key] = once(_made(model), key, functools.partial(function, model, *args, **kwargs))
        return results[key]

    def once(made: Hashable | None, key: Hashable, count: Callable[[], R]) -> R:
        if made is None:
            return count()
        if (made, key) not in alike:
            if len(alike) >= _MOST_ALIKE:
                del alike[next(iter(alike))]
            alike[made, key] = count()
        return alike[made, key]

    return remember


def _made(model: nn.Module) -> Hashable | None:
    """What it is made of, equal for models that compute alike whatever their weights are; None: nobody can say."""
    order: dict[int, int] = {}
    try:
        return tuple(
            (name, order.setdefault(id(layer), len(order)), type(layer), tuple(_attributes(layer, order)))
            for name, layer in model.named_modules(remove_duplicate=False)
        )
    except _UnknownError:
        return None


class _UnknownError(Exception):
    """Of something that only its own code can tell from another."""


def _attributes(layer: nn.Module, order: dict[int, int]) -> Iterator[Hashable]:
    if type(layer).__module__.partition(".")[0] not in ("torch", "fedge"):
        raise _UnknownError
    for key, value in layer.__dict__.items():
        if key not in _SKIPPED and not getattr(value, "stands_aside", False):
            yield key, _like(value, order)


def _like(value: Any, order: dict[int, int]) -> Hashable:
    """Equal for values that are alike. A tensor is known by its first place, so that one that is shared is seen."""
    if isinstance(value, bool | int | float | str | None | torch.dtype | torch.Size):
        return type(value), value
    if type(value) in (Tensor, nn.Parameter):
        place = order.setdefault(id(value), len(order))
        return place, value.shape, value.stride(), value.dtype, value.device, value.requires_grad
    if isinstance(value, dict):
        return tuple(
            (str(key), _like(held, order))
            for key, held in value.items()
            if not getattr(held, "stands_aside", False)
        )
    if isinstance(value, list | tuple):
        return tuple(_like(held, order) for held in value)
    raise _UnknownError


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
