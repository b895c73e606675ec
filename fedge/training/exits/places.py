"""Behind which layers of a network exits stand: of fedge's families chosen by their cost, of others by name.

    ResNets    behind residual blocks, but not behind the last
    others     behind each layer that halves the picture's sides, but not behind the last product before the head's

Where there are more than three such places, those nearest to a quarter, a half and three quarters of the network's
forward MACs are taken: an exit costs too, and is paid for by every sample that goes on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedge.catalog.names import did_you_mean
from fedge.errors import UserError
from fedge.models.blocks import ConvNormAct
from fedge.models.resnet import ResNet
from fedge.training.macs import count_forward, evaluating, one_instance

SHARES = (0.25, 0.5, 0.75)
MOST_EXITS = 8  # before the last, as a report has room for


@dataclass(frozen=True)
class Place:
    """Behind the layer called `layer`, which gives [B, *shape]."""

    layer: str
    shape: tuple[int, ...]


def find_places(trunk: nn.Module, input_shape: Sequence[int], where: Sequence[str] = ()) -> tuple[Place, ...]:
    """The places of the layers named in `where`, in the order in which they run; of none: the family's own.

    Inputs are [C, H, W]. UserError for a name that is unknown, or of a layer that never runs or gives neither a map
    [B, C, H, W] nor features [B, D]; and where none is named for a network that is not of fedge's families.
    """
    names = tuple(where) or _own_places(trunk, input_shape)
    known = {name for name, _ in trunk.named_modules() if name}
    for name in names:
        if name not in known:
            raise UserError(
                f"training.exits.where names layer {name!r}, which is unknown; {did_you_mean(name, sorted(known))}"
            )
    if len(names) > MOST_EXITS:
        raise UserError(
            f"training.exits.where names {len(names)} layers; {MOST_EXITS} exits at most are wanted"
        )
    ran = _shapes(trunk, input_shape, names)
    for name in names:
        if name not in ran:
            raise UserError(f"training.exits.where names layer {name!r}, which never runs: leave it out")
        if len(ran[name]) not in (1, 3):
            raise UserError(
                f"training.exits.where names layer {name!r}, which gives no map [B, C, H, W] and no features [B, D]: "
                "name another"
            )
    return tuple(Place(name, shape) for name, shape in ran.items())


def _own_places(trunk: nn.Module, input_shape: Sequence[int]) -> tuple[str, ...]:
    if not type(trunk).__module__.startswith("fedge.models."):
        raise UserError(
            "training.exits.where is not given, and the network is one of your own: name the layers behind which "
            'exits stand, as in where = ["stage1", "stage2"]'
        )
    chain = [name for name, _ in _chain(trunk)]
    done = _macs_done(trunk, input_shape, chain)
    if isinstance(trunk, ResNet):
        found = [name for name in chain if name.startswith("stage")][:-1]
    else:
        found = _halving(trunk, input_shape, chain)
    total, before_head = sorted(set(done.values()))[-1:], sorted(set(done.values()))[-2:-1]
    found = [name for name in found if [done[name]] not in (total, before_head)]
    found = list(
        {done[name]: name for name in found}.values()
    )  # of several without a product between, the last
    if not found:
        raise UserError("training.exits: the network has no place for an exit: take a deeper one")
    if len(found) <= len(SHARES):
        return tuple(found)
    nearest = [min(found, key=lambda name: abs(done[name] - share * total[0])) for share in SHARES]
    return tuple(dict.fromkeys(nearest))


def _chain(layer: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers that run one behind another, by name; what is no plain sequence is one of them."""
    for name, child in layer.named_children():
        if isinstance(child, nn.Sequential) and not isinstance(child, ConvNormAct):
            yield from _chain(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _halving(trunk: nn.Module, input_shape: Sequence[int], chain: Sequence[str]) -> list[str]:
    """Those that make the longer side of a map shorter by two fifths or more."""
    shapes, before = _shapes(trunk, input_shape, chain), tuple(input_shape)
    found: list[str] = []
    for name in chain:
        shape = shapes.get(name, ())
        if len(shape) == len(before) == 3 and max(shape[1:]) <= 0.6 * max(before[1:]):
            found.append(name)
        before = shape
    return found


def _macs_done(trunk: nn.Module, input_shape: Sequence[int], chain: Sequence[str]) -> dict[str, int]:
    """The forward MACs that are done when each layer of the chain is through."""
    table, done = count_forward(trunk, input_shape), 0
    sums: dict[str, int] = {}
    for name in chain:
        done += sum(
            layer.forward for layer in table.layers if layer.name == name or layer.name.startswith(f"{name}.")
        )
        sums[name] = done
    return sums


def _shapes(trunk: nn.Module, input_shape: Sequence[int], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """What these layers give for one instance, in the order in which they first run."""
    layers = dict(trunk.named_modules())
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if name not in shapes:
            shapes[name] = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()

    handles = [layers[name].register_forward_hook(partial(note, name)) for name in names]
    try:
        with evaluating(trunk), torch.no_grad():
            trunk(one_instance(trunk, input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return shapes
