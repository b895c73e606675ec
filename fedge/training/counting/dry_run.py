"""A model run for what it costs, and put back as if it had never run.

Inside `stand_in` its parameters and buffers are others': fake ones of the same shapes, or copies. Whatever a forward
pass leaves behind (running statistics, counters, kept tensors, random state, modes) is gone afterwards. fedge's own
methods stand aside: error maps are neither pruned nor counted, nothing is rounded.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fedge.errors import UserError, is_out_of_memory
from fedge.training.torch_device import device_of, generators_kept
from fedge.training.torch_private import BACKWARD_HOOKS, FakeTensorMode, is_lazy, modes_off

_running = 0

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")


def stands_aside(function: F) -> F:
    """Mark what a method puts into a model: it does nothing of its own in a dry run, and is no part of the model."""
    function.stands_aside = True  # type: ignore[attr-defined]
    return function


def in_dry_run() -> bool:
    """Whether a model runs for what it costs only: then methods stand aside."""
    return _running > 0


@contextmanager
def stand_in(model: nn.Module, fake: FakeTensorMode | None = None, *, aside: bool = True) -> Iterator[None]:
    """`model` on fake parameters and buffers (or on copies); all of it as it was after.

    `aside`: whether methods attached to it stand aside. Modes of the caller, such as a FLOP counter, see nothing of
    it, nor do backward hooks of layers; forward hooks do, as they may multiply. A model that reads the values of its
    tensors cannot run on fake ones. Raises UserError for a lazy layer, which has no shape yet.
    """
    global _running
    kept = _Kept(model)
    with modes_off(), generators_kept(device_of(model)):
        _running += aside
        try:
            kept.replace(fake)
            yield
        finally:
            _running -= aside
            kept.restore()


def require_shapes(model: nn.Module) -> None:
    """UserError for a lazy layer, which has none before its first batch."""
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise UserError(
                f"the layer of '{name}' has no shape before its first batch: run the network on one batch first"
            )


@contextmanager
def explained(shape: Sequence[int], mode: str = "training") -> Iterator[None]:
    """UserError, in one line, where a network cannot run on such a batch."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"the network cannot run on a batch of {list(shape)} in {mode} mode: {type(error).__name__}: {reason}"
        ) from error


class _Kept:
    """What the modules hold now, and stand-ins for their tensors."""

    def __init__(self, model: nn.Module) -> None:
        self.attributes = [(module, dict(module.__dict__)) for module in model.modules()]
        self.contents = [
            (held, held.copy())
            for _, attributes in self.attributes
            for held in attributes.values()
            if isinstance(held, list | dict | set)
        ]
        self.generators = [
            (held, held.get_state())
            for _, attributes in self.attributes
            for held in attributes.values()
            if isinstance(held, torch.Generator)
        ]
        require_shapes(model)

    def replace(self, fake: FakeTensorMode | None) -> None:
        made: dict[int, Any] = {}

        def stand_in_for(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if id(value) not in made:
                made[id(value)] = _like(value, fake)
            return made[id(value)]

        for module, attributes in self.attributes:
            for name, held in attributes.items():
                if isinstance(held, Tensor):
                    module.__dict__[name] = stand_in_for(held)
                elif isinstance(held, dict):  # parameters, buffers, children, hooks: each in a dictionary
                    copied = held.copy()
                    copied.update((key, stand_in_for(value)) for key, value in held.items())
                    module.__dict__[name] = copied
            for name in BACKWARD_HOOKS:
                module.__dict__[name] = OrderedDict()

    def restore(self) -> None:
        for module, attributes in self.attributes:
            module.__dict__.clear()
            module.__dict__.update(attributes)
        for held, content in self.contents:
            held.clear()
            held.extend(content) if isinstance(held, list) else held.update(content)
        for generator, state in self.generators:
            generator.set_state(state)


def _like(value: Tensor, fake: FakeTensorMode | None) -> Tensor:
    """A leaf of the same kind, shape, order, device and need of a gradient."""
    leaf = fake.from_tensor(value.detach()) if fake else value.detach().clone()
    if isinstance(value, nn.Parameter):
        return nn.Parameter(leaf, value.requires_grad)
    return leaf.requires_grad_(value.requires_grad)


def instances(model: nn.Module, shape: Sequence[int], count: int, dtype: torch.dtype | None = None) -> Tensor:
    """Zeros [count, *shape], on the parameters' device and of their dtype unless told."""
    parameter = next(model.parameters(), torch.empty(0))
    return torch.zeros(count, *shape, dtype=dtype or parameter.dtype, device=parameter.device)


def on_fake_or_real(run: Callable[[FakeTensorMode | None], R], *, fake: bool = True) -> R:
    """What `run` brings on fake tensors, where asked for, and on real ones where the model cannot run on these."""
    if fake:
        try:
            return run(FakeTensorMode(allow_non_fake_inputs=True))
        except UserError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
    return run(None)
