"""Another forward for a layer's object while something is attached to its model; the class keeps its own."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeGuard, TypeVar

from torch import Tensor, nn

from fedge.training.counting.dry_run import stands_aside
from fedge.training.torch_private import children_of, is_heard

Kind = TypeVar("Kind", bound=nn.Module)
Block = tuple[nn.Conv2d, nn.BatchNorm2d] | tuple[nn.Module]
"""A convolution with the norm behind it; else a single layer."""


def computes_as(layer: nn.Module, kind: type[Kind]) -> TypeGuard[Kind]:
    """Whether `layer` is of that kind and runs the kind's own forward, not a subclass's, which may compute anything."""
    methods = ("forward", "_conv_forward")  # of convolutions the first calls the second
    return isinstance(layer, kind) and all(
        getattr(type(layer), method, None) is getattr(kind, method, None) for method in methods
    )


def replace_forward(layer: nn.Module, forward: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    """Give this one object another forward; calling what is returned puts back the one it had."""
    own = layer.__dict__.get("forward")
    layer.forward = stands_aside(partial(_by_keyword_too, forward))
    return partial(delattr, layer, "forward") if own is None else partial(setattr, layer, "forward", own)


def _by_keyword_too(forward: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
    """PyTorch's own layers may be called as layer(input=x). (A partial of this can be copied with its model.)"""
    return forward(input)


def blocks_of(layers: nn.Sequential) -> Iterator[tuple[str, Block]]:
    """The layers in order, in blocks with the first one's name. Where somebody listens to a layer, it is on its own."""
    waiting = list(children_of(layers))
    while waiting:
        block = _first_block([layer for _, layer in waiting[:2]])
        yield waiting[0][0], block
        del waiting[: len(block)]


def _first_block(layers: list[nn.Module]) -> Block:
    match layers:
        case [conv, norm] if _joins(conv, nn.Conv2d) and _joins(norm, nn.BatchNorm2d):
            return conv, norm
    return (layers[0],)


def _joins(layer: nn.Module, kind: type[Kind]) -> TypeGuard[Kind]:
    return computes_as(layer, kind) and not is_heard(layer)
