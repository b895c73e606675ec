"""How each of PyTorch's operations carries channels along; one that is in no list here keeps all that it reads.

pointwise       what stands at one place goes together; a width of one that is spread over many channels stays
reductions      over positions: carried. Over channels: kept
pools, resizes  over positions: carried. Over channels: kept
views           carried by their strides; one that takes channels apart ties the parts, and is tried
"""

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from fedge.training.pruning.slots import varies

if TYPE_CHECKING:
    from fedge.training.pruning.trace import Trace

Rule = Callable[["Trace", "Call"], None]


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
        self.name, names = _signature(func)
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


def follow(
    trace: "Trace", func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor], out: Any
) -> None:
    """Label what `func` gave, by what it read: `inputs` are the tensors among its arguments."""
    labels = [label for x in inputs if (label := trace.labels.of(x)) is not None]
    if labels:
        _rule_of(func)(trace, Call(func, args, kwargs, inputs, labels, out))


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
def _signature(func: Any) -> tuple[str, list[str]]:
    """The operation's name, in place or not, and those of its arguments."""
    name = func._schema.name.split("::")[-1].rstrip("_")
    return name, [argument.name for argument in func._schema.arguments]


@cache
def _rule_of(func: Any) -> Rule:
    name, _ = _signature(func)
    if name in RULES:
        return RULES[name]
    if re.search(r"pool\dd|^upsample_|(reflection|replication)_pad", name):
        return _over_positions
    if torch.Tag.pointwise in func.tags:
        return _pointwise
    if torch.Tag.reduction in func.tags:
        return _reduction
    return _like if name.endswith("_like") else _mixing


def _mixing(trace: "Trace", call: Call) -> None:
    trace.keep(call.name, call.labels)
    for out in call.outputs:
        trace.labels.put(out, torch.zeros(out.shape, dtype=torch.int32))


def _nothing(trace: "Trace", call: Call) -> None:
    """A view: its storage has its labels."""


def _pointwise(trace: "Trace", call: Call) -> None:
    """Elements at one place go together; what is spread over different channels stays as it is."""
    (out, *others) = call.outputs
    shape = out.shape
    spread = [label.expand(shape) for label in call.labels if _fits(label, shape)]
    if len(spread) < len(call.labels):
        return _mixing(trace, call)
    varying = [[varies(label, axis) for axis in range(len(shape))] for label in spread]
    joined: Tensor | None = None
    for index, label in enumerate(spread):
        rest = [any(v[axis] for i, v in enumerate(varying) if i != index) for axis in range(len(shape))]
        wide = [label.stride(axis) == 0 and shape[axis] > 1 for axis in range(len(shape))]
        if any(r and w for r, w in zip(rest, wide, strict=True)):
            trace.keep(call.name, [label])
        elif joined is None:
            joined = label
        else:
            trace.slots.tie(joined, label)
    if joined is None:
        joined = torch.zeros(shape, dtype=torch.int32)
    _with_constants(trace, call, joined)
    _write(trace, call, out, joined)
    for other in others:
        trace.labels.put(other, joined.expand(other.shape))


def _write(trace: "Trace", call: Call, out: Tensor, label: Tensor) -> None:
    """A constant that is written into, a part at a time perhaps, has a size of its own."""
    if any(out is x for x in call.inputs) and trace.labels.of(out) is None:
        trace.assume(call.name, label)
    trace.labels.put(out, label)


def _with_constants(trace: "Trace", call: Call, joined: Tensor) -> None:
    """A constant as wide as the channels that it meets: a parameter cannot follow them, another may."""
    for x in call.inputs:
        if trace.labels.of(x) is not None or x.dim() == 0 or not _fits(x, joined.shape):
            continue
        wide = x.expand(joined.shape)
        if any(
            wide.stride(axis) and varies(joined, axis)
            for axis in range(joined.dim())
            if joined.shape[axis] > 1
        ):
            if trace.is_stored(x):
                trace.keep("a parameter or buffer", [joined])
            else:
                trace.assume(call.name, joined)


def _fits(x: Tensor, shape: torch.Size) -> bool:
    """Whether x broadcasts to the shape."""
    tail = shape[len(shape) - x.dim() :] if x.dim() <= len(shape) else None
    return tail is not None and all(a in (1, b) for a, b in zip(x.shape, tail, strict=True))


def _reduction(trace: "Trace", call: Call) -> None:
    axes = call.axes()
    label = call.source
    if len(call.labels) > 1 or any(varies(label, axis) for axis in axes):
        return _mixing(trace, call)
    for axis in axes:
        label = label.narrow(axis, 0, 1)
    for out in call.outputs:
        trace.labels.put(out, label.reshape(out.shape))


def _along(trace: "Trace", call: Call) -> None:
    """Softmax and the like: they mix what lies along one axis, and keep the shape."""
    chosen = [call.axes(name) for name in ("dim", "dims") if name in call.of]
    if (
        len(call.labels) > 1
        or not chosen
        or any(varies(call.source, axis) for axes in chosen for axis in axes)
    ):
        return _mixing(trace, call)
    for out in call.outputs:
        if out.shape != call.source.shape:
            return _mixing(trace, call)
        trace.labels.put(out, call.source)


def _over_positions(trace: "Trace", call: Call) -> None:
    """Pools and resizes: the last axes are positions."""
    label, out = call.source, call.outputs[0]
    named = re.search(r"(\d)d", call.name)
    first = out.dim() - (int(named[1]) if named else 1)
    if label.dim() != out.dim() or any(varies(label, axis) for axis in range(first, out.dim())):
        return _mixing(trace, call)
    for axis in range(first, out.dim()):
        label = label.narrow(axis, 0, 1)
    for each in call.outputs:
        trace.labels.put(each, label.expand(each.shape))


def _pad(trace: "Trace", call: Call) -> None:
    """Padding of positions belongs to their channel; padding channels is of a size of its own."""
    label, pad = call.source, list(call.of["pad"])
    for pair in range(len(pad) // 2):
        axis, width = label.dim() - 1 - pair, pad[2 * pair : 2 * pair + 2]
        if not any(width):
            continue
        if not varies(label, axis):
            sizes = list(label.shape)
            sizes[axis] += sum(width)
            label = label.narrow(axis, 0, 1).expand(sizes)
        elif min(width) < 0:
            return _mixing(trace, call)
        else:
            label = functional.pad(label, [0, 0] * pair + width)
            trace.assume(call.name, label)
    trace.labels.put(call.outputs[0], label)


def _cat(trace: "Trace", call: Call) -> None:
    """Labels side by side; a constant among them keeps its place, and its size."""
    tensors = call.of["tensors"]
    tensors = [x for x in tensors if x.shape != (0,)]
    labels = [trace.labels.of(x) for x in tensors]
    zeros = [
        torch.zeros(x.shape, dtype=torch.int32) if label is None else label
        for x, label in zip(tensors, labels, strict=True)
    ]
    joined = (
        torch.stack(zeros, call.of.get("dim", 0))
        if call.name == "stack"
        else torch.cat(zeros, call.of.get("dim", 0))
    )
    trace.labels.put(call.outputs[0], joined)


def _like(trace: "Trace", call: Call) -> None:
    out = call.outputs[0]
    trace.labels.put(out, call.source.expand(out.shape))


def _new(trace: "Trace", call: Call) -> None:
    """x.new_zeros(n, c, 1, 1) beside x [n, c, h, w] follows its channels (dropout of channels is made so)."""
    out, label = call.outputs[0], call.source
    if out.dim() != label.dim() or any(a not in (1, b) for a, b in zip(out.shape, label.shape, strict=True)):
        return
    for axis in range(out.dim()):
        if out.shape[axis] != label.shape[axis]:
            if varies(label, axis):
                return
            label = label.narrow(axis, 0, 1)
    trace.labels.put(out, label)


def _repeat(trace: "Trace", call: Call) -> None:
    trace.labels.put(call.outputs[0], call.source.repeat(call.of["repeats"]))


def _index(trace: "Trace", call: Call) -> None:
    """Positions may be chosen by index, channels not."""
    indices = call.of["indices"] if call.name == "index" else None
    axes = [i for i, index in enumerate(indices) if index is not None] if indices is not None else call.axes()
    if len(call.labels) > 1 or any(varies(call.source, axis) for axis in axes):
        return _mixing(trace, call)
    args = [call.source if isinstance(arg, Tensor) and arg is call.inputs[0] else arg for arg in call.args]
    trace.labels.put(call.outputs[0], call.func(*args, **call.kwargs))


def _glu(trace: "Trace", call: Call) -> None:
    axis = call.axes()[0] if "dim" in call.of else call.source.dim() - 1
    a, b = call.source.chunk(2, axis)
    trace.slots.tie(a, b)
    trace.labels.put(call.outputs[0], a)


def _shuffle(trace: "Trace", call: Call) -> None:
    """Channels in groups change places; each group keeps the same of its own."""
    label, groups = call.source, call.of["groups"]
    parts = label.unflatten(1, (groups, -1))
    trace.slots.tie(parts, parts[:, :1].expand(parts.shape))
    trace.labels.put(call.outputs[0], parts.transpose(1, 2).flatten(1, 2))


def _pixels(trace: "Trace", call: Call) -> None:
    """A block of factor^2 channels becomes positions of one, or the reverse."""
    label = call.source
    if call.name == "pixel_shuffle":
        square = call.of["upscale_factor"] ** 2
        blocks = label.unflatten(-3, (-1, square))
        trace.slots.tie(blocks, blocks.narrow(-3, 0, 1).expand(blocks.shape))
        label = blocks.select(-3, 0)
    elif any(varies(label, axis) for axis in (-1, -2)):
        return _mixing(trace, call)
    else:
        label = label.repeat_interleave(call.of["downscale_factor"] ** 2, -3)
    out = call.outputs[0]
    trace.labels.put(out, label[..., :1, :1].expand(out.shape))


def _split(trace: "Trace", call: Call) -> None:
    """Equal parts of the channels keep the same of their own; unequal ones keep all."""
    axis = call.axes()[0] if "dim" in call.of else 0
    label = call.source
    if not varies(label, axis):
        return None
    sizes = {out.shape[axis] for out in call.outputs}
    if len(sizes) > 1:
        return trace.keep(call.name, [label])
    _tie_parts(trace, call, axis, sizes.pop())


def _slice(trace: "Trace", call: Call) -> None:
    """x[:, :half] and x[:, ::2] take channels apart; any other choice of channels keeps all."""
    axis = call.axes()[0] if "dim" in call.of else 0
    label = call.source
    length, taken = label.shape[axis], call.outputs[0].shape[axis]
    if taken == length or not varies(label, axis):
        return None
    step, start = call.of.get("step", 1), call.of.get("start") or 0
    start += length if start < 0 else 0
    if step > 1 and length % step == 0 and taken == length // step:
        parts = label.unflatten(axis, (-1, step))
        trace.slots.tie(parts, parts.narrow(axis + 1, 0, 1).expand(parts.shape))
        return trace.assume(call.name, label)
    if step > 1 or length % taken or start % taken:
        return trace.keep(call.name, [label])
    _tie_parts(trace, call, axis, taken)


def _tie_parts(trace: "Trace", call: Call, axis: int, size: int) -> None:
    label = call.source
    parts = label.unflatten(axis, (-1, size))
    trace.slots.tie(parts, parts.narrow(axis, 0, 1).expand(parts.shape))
    trace.assume(call.name, label)


def _one_of(trace: "Trace", call: Call) -> None:
    """x[:, 0]: one channel by its number."""
    axis = call.axes()[0] if "dim" in call.of else 0
    if varies(call.source, axis):
        trace.keep(call.name, [call.source])


def _view(trace: "Trace", call: Call) -> None:
    """Axes merged carry on; of a channel axis taken apart the widest part is the width, and the rest goes together."""
    if not isinstance(call.of.get("size", []), (list, tuple)) or call.outputs[0].numel() == 0:
        return _mixing(trace, call)
    before, after = call.source, trace.labels.of(call.outputs[0])
    assert after is not None  # a view's storage has labels
    if not any(varies(before, axis) for axis in range(before.dim())):
        return None
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


def _assumed_view(trace: "Trace", call: Call) -> None:
    """expand(n, c, h, w) may name widths."""
    if any(varies(call.source, axis) for axis in range(call.source.dim())):
        trace.assume(call.name, call.source)


def _unless_channels(trace: "Trace", call: Call) -> None:
    """Views that go by numbers (as_strided, diagonal, unfold): over positions alone they are carried."""
    if any(varies(call.source, axis) for axis in range(call.source.dim())):
        trace.keep(call.name, call.labels)


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ["permute", "transpose", "t", "squeeze", "unsqueeze", "alias", "detach", "lift_fresh", "numpy_T", "movedim", "swapaxes", "resolve_conj"],
        _nothing,
    ),
    **dict.fromkeys(
        ["copy", "_to_copy", "hardswish", "_prelu_kernel", "rrelu_with_noise", "native_dropout", "contiguous"], _pointwise
    ),
    **dict.fromkeys(["_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp", "flip", "roll", "sort"], _along),
    **dict.fromkeys(["new_empty", "new_zeros", "new_ones", "new_full"], _new),
    **dict.fromkeys(["split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"], _split),
    **dict.fromkeys(["view", "_unsafe_view", "reshape", "_reshape_alias"], _view),
    **dict.fromkeys(["as_strided", "diagonal", "unfold"], _unless_channels),
    **dict.fromkeys(["select", "unbind"], _one_of),
    **dict.fromkeys(["index", "index_select"], _index),
    **dict.fromkeys(["cat", "stack"], _cat),
    **dict.fromkeys(["pixel_shuffle", "pixel_unshuffle"], _pixels),
    **dict.fromkeys(["channel_shuffle", "native_channel_shuffle"], _shuffle),
    **dict.fromkeys(["bernoulli", "normal", "uniform", "fill", "zero"], _nothing),
    "repeat": _repeat,
    "glu": _glu,
    "slice": _slice,
    "expand": _assumed_view,
    "constant_pad_nd": _pad,
}
