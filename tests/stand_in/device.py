"""A device that minds what a GPU minds and computes on the CPU, so that its numbers are the CPU's bit for bit.

It is torch's private-use device with a backend in Python. A `StandIn` tensor holds a CPU tensor, which no operator
reaches but through `StandIn.__torch_dispatch__`. As on CUDA,

- an operator refuses tensors of both devices, but for copies, for indices on the CPU, and for a CPU tensor without
  dimensions that is read by an element-wise operator;
- a tensor is no NumPy array and cannot be saved as one;
- a generator of the CPU does not draw on the device. Nothing else does here: fedge draws on the CPU;
- backward passes run in a thread of their own.

torch counts its devices when it first runs a backward pass, so `register` must be called before, in a process that is
the tests' own (test_stand_in.py).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "standin"
aten = torch.ops.aten

_COPIES = {aten._to_copy, aten.copy_, aten.copy}
_BY_INDEX = {
    aten.index: 1,
    aten.index_put: 1,
    aten.index_put_: 1,
    aten._index_put_impl_: 1,
}  # argument: indices
_libraries: list[torch.library.Library] = []  # registrations live as long


class StandIn(Tensor):
    """A tensor on the device. `raw` is the CPU tensor that it stands for."""

    raw: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: Tensor) -> "StandIn":
        made: StandIn = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            layout=raw.layout,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    def __repr__(self, *_: object, **__: object) -> str:
        return f"StandIn({self.raw})"

    def tolist(self) -> Any:
        """torch refuses this of subclasses, and not of a GPU's tensors."""
        return self.raw.tolist()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        _require_one_device(func, args, kwargs)
        target = kwargs.get("device")
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        out = func(*tree_map(_raw, args), **tree_map(_raw, kwargs))
        if target is not None and torch.device(target).type != NAME:
            return out
        wrapped = tree_map(lambda value: StandIn(value) if type(value) is Tensor else value, out)
        if target is not None and not any(isinstance(value, StandIn) for value in tree_leaves(args)):
            return wrapped
        result = return_and_correct_aliasing(func, args, kwargs, wrapped)
        _require_true_shapes(args, kwargs)
        return result


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, StandIn) else value


def _require_one_device(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """RuntimeError where a GPU would not compute this."""
    if torch.Tag.nondeterministic_seeded in func.tags or any(
        isinstance(value, torch.Generator) for value in tree_leaves((args, kwargs))
    ):
        raise RuntimeError(f"{func} would draw random numbers on {NAME}")
    packet = func.overloadpacket
    if packet in _COPIES:
        return
    for position, (name, value, written) in enumerate(_arguments(func, args, kwargs)):
        for tensor in tree_leaves(value):
            if not isinstance(tensor, Tensor) or isinstance(tensor, StandIn):
                continue
            if _BY_INDEX.get(packet) == position:
                continue
            if tensor.dim() == 0 and torch.Tag.pointwise in func.tags and not written:
                continue
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {func} got {name} "
                f"{list(tensor.shape)} on {tensor.device} and others on {NAME}:0"
            )


def _arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Name and value of each, and whether the operator writes into it."""
    for index, argument in enumerate(func._schema.arguments):
        value = args[index] if index < len(args) else kwargs.get(argument.name)
        written = argument.alias_info is not None and argument.alias_info.is_write
        yield argument.name, value, written


def _require_true_shapes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """An operator that changed the form of what it wrote into (out= of another shape) is none that we stand in for."""
    for tensor in tree_leaves((args, kwargs)):
        if isinstance(tensor, StandIn) and (tensor.shape, tensor.stride()) != (
            tensor.raw.shape,
            tensor.raw.stride(),
        ):
            raise NotImplementedError(f"{NAME}: a tensor changed its form from {list(tensor.shape)} in place")


def register() -> torch.device:
    """Make the device known to torch; it."""
    if not _libraries:
        _setup_privateuseone_for_python_backend(NAME)
        # a parameter stays the same object when its module moves, as it does between the CPU and CUDA
        torch.__future__.set_swap_module_params_on_conversion(True)
        library = torch.library.Library("aten", "IMPL")
        for name, operator in _factories():
            library.impl(name, _made_by(operator), "PrivateUse1")
        library.impl("_copy_from", _copied, "PrivateUse1")  # what torch.tensor(..., device=) calls
        _libraries.append(library)
    return torch.device(NAME, 0)


def _factories() -> Iterator[tuple[str, Any]]:
    """The operators that make a tensor out of none, on a device that they are given."""
    for full in torch._C._dispatch_get_all_op_names():
        name, _, overload = full.removeprefix("aten::").partition(".")
        packet = getattr(aten, name, None) if full.startswith("aten::") else None
        operator = getattr(packet, overload or "default", None)
        if operator is None:
            continue
        arguments, returns = operator._schema.arguments, operator._schema.returns
        makes_one = len(returns) == 1 and str(returns[0].type) == "Tensor"
        on_device = any(argument.name == "device" for argument in arguments)
        if makes_one and on_device and not any("Tensor" in str(argument.type) for argument in arguments):
            yield full.removeprefix("aten::"), operator


def _made_by(operator: Any) -> Any:
    def make(*args: Any, **kwargs: Any) -> Tensor:
        if torch.Tag.nondeterministic_seeded in operator.tags:
            raise RuntimeError(f"{operator} would draw random numbers on {NAME}")
        return StandIn(operator(*args, **kwargs | {"device": torch.device("cpu"), "pin_memory": False}))

    return make


def _copied(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _raw(target).copy_(_raw(source))
    return target
