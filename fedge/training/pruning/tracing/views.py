"""Operations that take channels apart: parts that must keep the same of their own are tied, and the join is tried."""

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedge.training.pruning.tracing.labels import varies

if TYPE_CHECKING:
    from fedge.training.pruning.tracing.trace import Trace


class Call:
    """One operation: its name, its arguments by name, its tensors, and the labels of those that have them."""

    def __init__(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: list[Tensor],
        labels: list[Tensor],
        out: Any,
    ) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name, names = signature(func)
        self.of: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
        self.inputs, self.labels, self.outputs = inputs, labels, tensors_in(out)

    @property
    def source(self) -> Tensor:
        """Labels of the operation's one subject."""
        return self.labels[0]

    def axes(self, name: str = "dim") -> list[int]:
        """The axes that an argument names, counted from the front; all where it names none."""
        chosen = self.of.get(name)
        rank = self.source.dim()
        if chosen is None or chosen == []:
            return list(range(rank))
        return [axis % rank for axis in ([chosen] if isinstance(chosen, int) else chosen)] if rank else []


def tensors_in(nested: Any) -> list[Tensor]:
    """The tensors in an operation's arguments or results, in order."""
    if isinstance(nested, Tensor):
        return [nested]
    if isinstance(nested, dict):
        nested = nested.values()
    elif not isinstance(nested, (list, tuple)):
        return []
    return [tensor for part in nested for tensor in tensors_in(part)]


@cache
def signature(func: Any) -> tuple[str, list[str]]:
    """The operation's name, in place or not, and those of its arguments."""
    name = func._schema.name.split("::")[-1].rstrip("_")
    return name, [argument.name for argument in func._schema.arguments]


def apart(label: Tensor, axis: int, sizes: tuple[int, int]) -> Tensor:
    """The axis as two, the first the slower one; -1 is what is left."""
    axis %= label.dim()
    known = max(sizes)
    pair = [label.shape[axis] // known if size == -1 else size for size in sizes]
    return label.reshape(*label.shape[:axis], *pair, *label.shape[axis + 1 :])


def split(trace: "Trace", call: Call) -> bool:
    """Equal parts of the channels keep the same of their own; unequal ones keep all."""
    axis = call.axes()[0] if "dim" in call.of else 0
    label = call.source
    if not varies(label, axis):
        return True
    sizes = {out.shape[axis] for out in call.outputs}
    if len(sizes) > 1:
        trace.keep(call.name, [label])
        return True
    _tie_parts(trace, call, axis, sizes.pop())
    return True


def slice(trace: "Trace", call: Call) -> bool:
    """x[:, :half] and x[:, ::2] take channels apart; any other choice of channels keeps all."""
    axis = call.axes()[0] if "dim" in call.of else 0
    label = call.source
    length, taken = label.shape[axis], call.outputs[0].shape[axis]
    if taken == length or not varies(label, axis):
        return True
    step, start = call.of.get("step", 1), call.of.get("start") or 0
    start += length if start < 0 else 0
    if step > 1 and length % step == 0 and taken == length // step:
        parts = apart(label, axis, (-1, step))
        trace.slots.tie(parts, parts.narrow(axis + 1, 0, 1).expand(parts.shape))
        trace.assume(call.name, label)
        return True
    if step > 1 or length % taken or start % taken:
        trace.keep(call.name, [label])
        return True
    _tie_parts(trace, call, axis, taken)
    return True


def _tie_parts(trace: "Trace", call: Call, axis: int, size: int) -> None:
    label = call.source
    parts = apart(label, axis, (-1, size))
    trace.slots.tie(parts, parts.narrow(axis, 0, 1).expand(parts.shape))
    trace.assume(call.name, label)


def one_of(trace: "Trace", call: Call) -> bool:
    """x[:, 0]: one channel by its number."""
    axis = call.axes()[0] if "dim" in call.of else 0
    if varies(call.source, axis):
        trace.keep(call.name, [call.source])
    return True


def view(trace: "Trace", call: Call) -> bool:
    """Axes merged carry on; of a channel axis taken apart the widest part is the width, and the rest goes together."""
    if not isinstance(call.of.get("size", []), (list, tuple)) or call.outputs[0].numel() == 0:
        return False
    before, after = call.source, trace.labels.of(call.outputs[0])
    assert after is not None  # a view's storage has labels
    if not any(varies(before, axis) for axis in range(before.dim())):
        return True
    for axes_in, axes_out in _factors(before.shape, after.shape):
        split = [axis for axis in axes_out if after.shape[axis] > 1]
        if not any(varies(before, axis) for axis in axes_in):
            continue
        trace.assume(call.name, before)
        if len([axis for axis in axes_in if before.shape[axis] > 1]) > 1 or len(split) < 2:
            continue
        varying = [axis for axis in split if varies(after, axis)]
        if before.dim() == 2 or len(varying) < 2:
            continue  # maps made of a linear layer's features: what reads them ties their positions
        width = max(varying, key=lambda axis: (after.shape[axis], axis))
        for axis in varying:
            if axis != width:
                trace.slots.tie(after, after.narrow(axis, 0, 1).expand(after.shape))
    return True


def _factors(before: torch.Size, after: torch.Size) -> list[tuple[list[int], list[int]]]:
    """Axes of one shape and of another that hold the same elements, piece by piece."""
    pieces: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        axes_in, axes_out, a, b = [], [], 1, 1
        while True:
            if (a <= b or j >= len(after)) and i < len(before):
                a, i = a * before[i], i + 1
                axes_in.append(i - 1)
            elif j < len(after):
                b, j = b * after[j], j + 1
                axes_out.append(j - 1)
            if (a == b and axes_in and axes_out) or (i >= len(before) and j >= len(after)):
                break
        pieces.append((axes_in, axes_out))
    return pieces


def assumed_view(trace: "Trace", call: Call) -> bool:
    """expand(n, c, h, w) may name widths."""
    if any(varies(call.source, axis) for axis in range(call.source.dim())):
        trace.assume(call.name, call.source)
    return True


def unless_channels(trace: "Trace", call: Call) -> bool:
    """Views that go by numbers (as_strided, diagonal, unfold): over positions alone they are carried."""
    if any(varies(call.source, axis) for axis in range(call.source.dim())):
        trace.keep(call.name, call.labels)
    return True
