"""Which parameters are trained; the others are frozen.

    all     every parameter that the network itself does not freeze
    head    the last layer that multiplies: the classifier
    norm    scale and shift of every norm, and the head
    shift   every shift: biases of norms, convolutions, linear layers, and the head
    last    the block before the head, and the head
    [...]   parameters and layers by name, with all that is in them

A frozen parameter has `requires_grad` false, and nothing else: what PyTorch then leaves out (its gradient, the error
below the lowest trained layer, what would have been kept for both) is what is counted and what memory is asked for.
`training_mode` is the rest of it: a layer that keeps statistics learns them only where its scale is trained, as batch
statistics would change what frozen layers compute.

norm without a head is Frankle et al. (arXiv 2003.00152) and TENT (arXiv 2006.10726), shift BitFit (arXiv 2106.10199)
and TinyTL's bias-only training (arXiv 2007.11622). Both of the latter train the head too; norm does it here so that the
rows of a comparison differ in one thing. In PyTorch, norm and shift still keep the maps in front of every norm and
convolution: they save the gradients of weights, and next to no memory.
"""

from collections.abc import Hashable, Iterator, Sequence

from torch import nn

from fedge.catalog.names import did_you_mean
from fedge.errors import UserError
from fedge.training.macs import count_forward
from fedge.training.torch_private import BatchNorm, InstanceNorm

What = str | tuple[str, ...]

_NORMS = (BatchNorm, InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def freeze(model: nn.Module, what: What, input_shape: Sequence[int]) -> None:
    """Leave `what` of the model to be trained, on inputs [C, H, W] of that shape; what it froze itself stays frozen.

    UserError where the network has nothing of the kind, or no layer of a name.
    """
    if what == "all":
        return
    chosen = _chosen(model, what, input_shape)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name in chosen)
    if not trained(model):
        raise UserError(
            f"training.what is {_shown(what)}, which the network itself has frozen: thaw it there"
        )


def trained(model: nn.Module) -> frozenset[str]:
    """The names of the parameters that are not frozen."""
    return frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def head_of(model: nn.Module, input_shape: Sequence[int]) -> str:
    """The name of the layer that `head` stands for, of a network on inputs [C, H, W] of that shape."""
    return _head(model, [layer.name for layer in count_forward(model, input_shape).layers])


def training_mode(model: nn.Module) -> None:
    """`model.train()`, but for layers of frozen parts that keep statistics: these use them, and leave them as they are.

    Such a layer is any with buffers of its own. One without a scale learns where the layers beside it are trained.
    """
    model.train()
    if all(parameter.requires_grad for parameter in model.parameters()):
        return
    layers = [(layer, _is_scale_trained(layer)) for layer in model.modules()]
    for place, (layer, is_trained) in enumerate(layers):
        if next(layer.buffers(recurse=False), None) is None:
            continue
        if is_trained is None:
            sides = reversed(layers[:place]), layers[place + 1 :]
            beside = [next((known for _, known in side if known is not None), True) for side in sides]
            is_trained = all(beside)
        layer.training = is_trained


def _is_scale_trained(layer: nn.Module) -> bool | None:
    """None of a layer without parameters of its own, or with a bias alone."""
    scales = [parameter for name, parameter in _own(layer) if not _is_bias(name)]
    return any(parameter.requires_grad for parameter in scales) if scales else None


_CHOSEN: dict[Hashable, frozenset[str]] = {}
"""What this process has found already: the networks of a fleet have the same layers, whatever their widths."""


def _chosen(model: nn.Module, what: What, input_shape: Sequence[int]) -> frozenset[str]:
    names = tuple(name for name, _ in model.named_parameters())
    key = type(model), names, what, tuple(input_shape)
    if key not in _CHOSEN:
        found = _named(model, what) if isinstance(what, tuple) else _of_kind(model, what, input_shape)
        _CHOSEN[key] = frozenset(found)
    return _CHOSEN[key]


def _of_kind(model: nn.Module, what: str, input_shape: Sequence[int]) -> Iterator[str]:
    order = [layer.name for layer in count_forward(model, input_shape).layers]
    head = _head(model, order)
    yield from _within(model, head, deep=False)
    if what == "last":
        for block in _last_block(model, head, order):
            yield from _within(model, block)
        return
    more = {"head": (), "norm": tuple(_norms(model)), "shift": tuple(_biases(model))}[what]
    if what != "head" and not more:
        lacks = "norm with a scale or a shift" if what == "norm" else "bias"
        raise UserError(f"training.what is {what!r} and the network has no {lacks}: take 'head' or 'last'")
    yield from more


def _named(model: nn.Module, names: Sequence[str]) -> Iterator[str]:
    parameters = [name for name, _ in model.named_parameters()]
    for name in names:
        within = [known for known in parameters if known == name or known.startswith(f"{name}.")]
        if not within:
            layers = [layer for layer, _ in model.named_modules() if layer]
            if name in layers:
                raise UserError(f"training.what names layer {name!r}, which has no parameters: leave it out")
            having = [layer for layer in layers if any(known.startswith(f"{layer}.") for known in parameters)]
            raise UserError(
                f"training.what names layer {name!r}, which is unknown; {did_you_mean(name, having)}"
            )
        yield from within


def _head(model: nn.Module, order: Sequence[str]) -> str:
    """The last layer, in the order in which they run, that multiplies by parameters of its own."""
    layers = dict(model.named_modules())
    for name in reversed(order):
        if any(True for _ in _own(layers[name])):
            return name
    raise UserError(
        "training.what: the network has no layer that multiplies by parameters of its own: take 'all'"
    )


def _last_block(model: nn.Module, head: str, order: Sequence[str]) -> list[str]:
    """The layers in front of the head that stand nearest to it, as children of the smallest layer that has any.

    Where one of them makes more than half of the products in front of the head, the last of its own children instead,
    and so on: a trunk of one piece is not its own last block.
    """
    parents = head.split(".")
    block: list[str] = []
    for depth in range(len(parents) - 1, -1, -1):
        found, belonging = _nearest(model, ".".join(parents[:depth]), head, order)
        block = [*found, *belonging, *block]
        if found:
            break
    before = [name for name in order if name != head]
    while block and 2 * sum(_is_in(name, block[0]) for name in before) > len(before):
        found, belonging = _nearest(model, block[0], head, order)
        if not found:
            break
        block = [*found, *belonging, *block[1:]]
    return block


def _nearest(model: nn.Module, parent: str, head: str, order: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of the children that do not hold the head: the one that multiplies last, if any does; and what belongs to it,
    such as its norm: those behind it that have vectors alone for parameters."""
    children = {
        f"{parent}.{child}" if parent else child: layer
        for child, layer in model.get_submodule(parent).named_children()
    }
    names = [name for name in children if not _is_in(head, name)]
    runs = {
        name: max((place for place, run in enumerate(order) if _is_in(run, name)), default=-1)
        for name in names
    }
    last = max(names, key=lambda name: runs[name], default=None)
    found = [last] if last is not None and runs[last] >= 0 else []
    behind = names[names.index(found[0]) + 1 :] if found else names
    return found, [name for name in behind if _has_vectors_alone(children[name])]


def _is_in(layer: str, other: str) -> bool:
    """Whether a layer is the other or one in it."""
    return layer == other or layer.startswith(f"{other}.")


def _has_vectors_alone(layer: nn.Module) -> bool:
    dimensions = [parameter.dim() for parameter in layer.parameters()]
    return bool(dimensions) and max(dimensions) < 2


def _norms(model: nn.Module) -> Iterator[str]:
    """PyTorch's own, and those that are called so."""
    for name, layer in model.named_modules():
        if isinstance(layer, _NORMS) or "norm" in type(layer).__name__.lower():
            yield from _within(model, name, deep=False)


def _biases(model: nn.Module) -> Iterator[str]:
    for name, _ in model.named_parameters():
        if _is_bias(name.rpartition(".")[2]):
            yield name


def _within(model: nn.Module, layer: str, *, deep: bool = True) -> Iterator[str]:
    """The names of a layer's parameters, those of layers in it among them where `deep`."""
    for name, _ in model.get_submodule(layer).named_parameters(recurse=deep):
        yield f"{layer}.{name}" if layer else name


def _own(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return layer.named_parameters(recurse=False)


def _is_bias(name: str) -> bool:
    """As PyTorch calls them: bias, in_proj_bias, bias_hh_l0."""
    return name == "bias" or name.startswith("bias_") or name.endswith("_bias")


def _shown(what: What) -> str:
    return repr(what) if isinstance(what, str) else str(list(what))
