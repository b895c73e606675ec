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

from fedge.training.pruning.tracing.labels import varies
from fedge.training.pruning.tracing.views import (
    Call,
    apart,
    assumed_view,
    one_of,
    signature,
    slice,
    split,
    unless_channels,
    view,
)

if TYPE_CHECKING:
    from fedge.training.pruning.tracing.trace import Trace

Rule = Callable[["Trace", "Call"], bool]  # False: not understood


def follow(
    trace: "Trace", func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor], out: Any
) -> None:
    """Label what `func` gave, by what it read: `inputs` are the tensors among its arguments."""
    labels = [label for x in inputs if (label := trace.labels.of(x)) is not None]
    if labels:
        call = Call(func, args, kwargs, inputs, labels, out)
        if not _rule_of(func)(trace, call):
            _keep_all(trace, call)


@cache
def _rule_of(func: Any) -> Rule:
    name, _ = signature(func)
    if name in RULES:
        return RULES[name]
    if re.search(r"pool\dd|^upsample_|(reflection|replication)_pad", name):
        return _over_positions
    if torch.Tag.pointwise in func.tags:
        return _pointwise
    if torch.Tag.reduction in func.tags:
        return _reduction
    return _like if name.endswith("_like") else _not_understood


def _keep_all(trace: "Trace", call: Call) -> None:
    trace.keep(call.name, call.labels)
    for out in call.outputs:
        trace.labels.put(out, torch.zeros(out.shape, dtype=torch.int32))


def _not_understood(trace: "Trace", call: Call) -> bool:
    return False


def _nothing(trace: "Trace", call: Call) -> bool:
    """A view: its storage has its labels."""
    return True


def _pointwise(trace: "Trace", call: Call) -> bool:
    """Elements at one place go together; what is spread over different channels stays as it is."""
    (out, *others) = call.outputs
    shape = out.shape
    spread = [label.expand(shape) for label in call.labels if _fits(label, shape)]
    if len(spread) < len(call.labels):
        return False
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
    return True


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


def _reduction(trace: "Trace", call: Call) -> bool:
    axes = call.axes()
    label = call.source
    if len(call.labels) > 1 or any(varies(label, axis) for axis in axes):
        return False
    for axis in axes:
        label = label.narrow(axis, 0, 1)
    for out in call.outputs:
        trace.labels.put(out, label.reshape(out.shape))
    return True


def _along(trace: "Trace", call: Call) -> bool:
    """Softmax and the like: they mix what lies along one axis, and keep the shape."""
    chosen = [call.axes(name) for name in ("dim", "dims") if name in call.of]
    if (
        len(call.labels) > 1
        or not chosen
        or any(varies(call.source, axis) for axes in chosen for axis in axes)
    ):
        return False
    for out in call.outputs:
        if out.shape != call.source.shape:
            return False
        trace.labels.put(out, call.source)
    return True


def _over_positions(trace: "Trace", call: Call) -> bool:
    """Pools and resizes: the last axes are positions."""
    label, out = call.source, call.outputs[0]
    named = re.search(r"(\d)d", call.name)
    first = out.dim() - (int(named[1]) if named else 1)
    if label.dim() != out.dim() or any(varies(label, axis) for axis in range(first, out.dim())):
        return False
    for axis in range(first, out.dim()):
        label = label.narrow(axis, 0, 1)
    for each in call.outputs:
        trace.labels.put(each, label.expand(each.shape))
    return True


def _pad(trace: "Trace", call: Call) -> bool:
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
            return False
        else:
            label = functional.pad(label, [0, 0] * pair + width)
            trace.assume(call.name, label)
    trace.labels.put(call.outputs[0], label)
    return True


def _cat(trace: "Trace", call: Call) -> bool:
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
    return True


def _like(trace: "Trace", call: Call) -> bool:
    out = call.outputs[0]
    trace.labels.put(out, call.source.expand(out.shape))
    return True


def _new(trace: "Trace", call: Call) -> bool:
    """x.new_zeros(n, c, 1, 1) beside x [n, c, h, w] follows its channels (dropout of channels is made so)."""
    out, label = call.outputs[0], call.source
    if out.dim() != label.dim() or any(a not in (1, b) for a, b in zip(out.shape, label.shape, strict=True)):
        return True
    for axis in range(out.dim()):
        if out.shape[axis] != label.shape[axis]:
            if varies(label, axis):
                return True
            label = label.narrow(axis, 0, 1)
    trace.labels.put(out, label)
    return True


def _repeat(trace: "Trace", call: Call) -> bool:
    trace.labels.put(call.outputs[0], call.source.repeat(call.of["repeats"]))
    return True


def _index(trace: "Trace", call: Call) -> bool:
    """Positions may be chosen by index, channels not."""
    indices = call.of["indices"] if call.name == "index" else None
    axes = [i for i, index in enumerate(indices) if index is not None] if indices is not None else call.axes()
    if len(call.labels) > 1 or any(varies(call.source, axis) for axis in axes):
        return False
    args = [call.source if isinstance(arg, Tensor) and arg is call.inputs[0] else arg for arg in call.args]
    trace.labels.put(call.outputs[0], call.func(*args, **call.kwargs))
    return True


def _glu(trace: "Trace", call: Call) -> bool:
    axis = call.axes()[0] if "dim" in call.of else call.source.dim() - 1
    a, b = call.source.chunk(2, axis)
    trace.slots.tie(a, b)
    trace.labels.put(call.outputs[0], a)
    return True


def _shuffle(trace: "Trace", call: Call) -> bool:
    """Channels in groups change places; each group keeps the same of its own."""
    label, groups = call.source, call.of["groups"]
    parts = apart(label, 1, (groups, -1))
    trace.slots.tie(parts, parts[:, :1].expand(parts.shape))
    trace.labels.put(call.outputs[0], parts.transpose(1, 2).flatten(1, 2))
    return True


def _pixels(trace: "Trace", call: Call) -> bool:
    """A block of factor^2 channels becomes positions of one, or the reverse."""
    label = call.source
    if call.name == "pixel_shuffle":
        square = call.of["upscale_factor"] ** 2
        blocks = apart(label, -3, (-1, square))
        trace.slots.tie(blocks, blocks.narrow(-3, 0, 1).expand(blocks.shape))
        label = blocks.select(-3, 0)
    elif any(varies(label, axis) for axis in (-1, -2)):
        return False
    else:
        label = label.repeat_interleave(call.of["downscale_factor"] ** 2, -3)
    out = call.outputs[0]
    trace.labels.put(out, label[..., :1, :1].expand(out.shape))
    return True


_NAMES: dict[Rule, str] = {
    _nothing: "permute transpose t squeeze unsqueeze alias detach lift_fresh bernoulli normal uniform fill zero",
    _pointwise: "copy _to_copy hardswish _prelu_kernel rrelu_with_noise native_dropout",
    _along: "_softmax _log_softmax cumsum cumprod logcumsumexp flip roll sort",
    _new: "new_empty new_zeros new_ones new_full",
    split: "split split_with_sizes unsafe_split unsafe_split_with_sizes",
    view: "view _unsafe_view reshape _reshape_alias",
    unless_channels: "as_strided diagonal unfold",
    one_of: "select unbind",
    _index: "index index_select",
    _cat: "cat stack",
    _pixels: "pixel_shuffle pixel_unshuffle",
    _shuffle: "channel_shuffle native_channel_shuffle",
    _repeat: "repeat",
    _glu: "glu",
    slice: "slice",
    assumed_view: "expand",
    _pad: "constant_pad_nd",
}
RULES = {name: rule for rule, names in _NAMES.items() for name in names.split()}
