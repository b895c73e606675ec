"""Which channels of a network stand or fall together: its *units*, the smallest pieces that pruning can cut.

slot = (layer, side, channel), numbered from 1 through the network; `KEPT` = 0 stands for all that is never cut.
unit = what ties hold together, unless it is tied to `KEPT`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fedge.training.macs import input_of
from fedge.training.pruning.layers import (
    LayerShape,
    channel_axis,
    channels_of,
    cuttable_layers,
    is_channelwise,
)
from fedge.training.pruning.tracing.labels import KEPT, distinct

PINNED = -1
OUTPUT, INPUT = 0, 1


class Kept(NamedTuple):
    """A layer whose channels pruning keeps, and the operation behind it that it does not see through."""

    layer: str
    operation: str


@dataclass(frozen=True)
class Coupling:
    """The units of a network, numbered 0 .. `units` - 1.

    `unit_of_output[layer]` int64 [outputs] and `unit_of_input[layer]` int64 [inputs] give each channel's unit, or
    `PINNED` where it is never cut. `kept` says what pinned them, other than the network's input and output.
    `trains_otherwise`: layers run in training that do not run in evaluation, or in another order.
    """

    units: int
    unit_of_output: dict[str, Tensor]
    unit_of_input: dict[str, Tensor]
    kept: tuple[Kept, ...] = ()
    trains_otherwise: bool = False

    def consumers(self, model: nn.Module) -> dict[str, nn.Module]:
        """The layers that read units and do not belong to them: cutting a unit is what they notice."""
        return {
            name: layer
            for name, layer in cuttable_layers(model).items()
            if not is_channelwise(layer)
            and not channels_of(layer).separable
            and bool((self.unit_of_input[name] != PINNED).any())
        }

    @contextmanager
    def at_consumers(self, model: nn.Module, change: Callable[[str, int, Tensor], Tensor]) -> Iterator[None]:
        """Within the block, each of the `consumers` reads `change(name, channel axis, input)` for its input."""

        def hook(
            name: str, layer: nn.Module, inputs: tuple[Tensor, ...], by_keyword: dict[str, Tensor]
        ) -> tuple[tuple[Tensor], dict[str, Tensor]]:
            return (change(name, channel_axis(layer), input_of(inputs, by_keyword)),), {}

        with ExitStack() as stack:
            for name, layer in self.consumers(model).items():
                handle = layer.register_forward_pre_hook(partial(hook, name), with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def producers(self, model: nn.Module) -> dict[str, nn.Module]:
        """The convolutions and linear layers whose filters belong to units, depthwise ones included."""
        return {
            name: layer
            for name, layer in cuttable_layers(model).items()
            if not is_channelwise(layer) and bool((self.unit_of_output[name] != PINNED).any())
        }

    def key(self) -> bytes:
        """Equal for equal units."""
        return b"".join(
            side[name].numpy().tobytes()
            for side in (self.unit_of_output, self.unit_of_input)
            for name in side
        )

    def kept_in_words(self) -> str:
        """ "; kept whole: 'layer' (operation), ..." for a refusal, or nothing."""
        if not self.kept:
            return ""
        names = [f"{kept.layer!r} (meets {kept.operation})" for kept in self.kept[:3]]
        more = f" and {len(self.kept) - 3} more" if len(self.kept) > 3 else ""
        return f"; kept whole, where pruning does not understand what joins the channels: {', '.join(names)}{more}"


class Slots:
    """Slots 1 .. `total` - 1 of a network's layers, and the ties between them; a tie with slot `KEPT` pins."""

    def __init__(self, model: nn.Module) -> None:
        layers = cuttable_layers(model)
        self.shapes: dict[str, LayerShape] = {name: channels_of(layer) for name, layer in layers.items()}
        sizes = [size for shape in self.shapes.values() for size in (shape.outputs, shape.inputs)]
        *self._starts, self.total = accumulate(sizes, initial=1)
        self._row = {name: 2 * index for index, name in enumerate(self.shapes)}
        self._all = torch.arange(self.total)
        self._ties: list[Tensor] = [torch.zeros(2, 0, dtype=torch.int64)]
        for name, layer in layers.items():
            self._tie_within(name, layer)

    def of(self, name: str, side: int) -> Tensor:
        """int64 [channels] of one side of a layer."""
        row = self._row[name] + side
        return self._all[self._starts[row] : self._starts[row] + self.shapes[name][side]]

    def tie(self, a: Tensor, b: Tensor) -> None:
        """What stands at one place in the two goes together; both are of one shape."""
        a, b = a.to(torch.int64).flatten(), b.to(torch.int64).flatten()
        differs = a != b
        if bool(differs.any()):
            a, b = a[differs], b[differs]
            if len(a) > 4096:
                pairs = distinct(a * self.total + b)
                a, b = pairs // self.total, pairs % self.total
            self._ties.append(torch.stack((a, b)))

    def pin(self, slots: Tensor) -> None:
        """They are never cut."""
        self.tie(slots, torch.full_like(slots, KEPT))

    def layers_of(self, slots: Tensor) -> list[str]:
        """The layers with an output among the slots."""
        rows = torch.searchsorted(torch.tensor(self._starts), distinct(slots[slots != KEPT]), right=True) - 1
        names = list(self.shapes)
        return [names[row // 2] for row in distinct(rows).tolist() if row % 2 == OUTPUT]

    def close(self, pinned: list[Tensor], kept: tuple[Kept, ...], *, trains_otherwise: bool) -> Coupling:
        """Number the units in the order of their first slot. An input that no traced output feeds is pinned."""
        pins = [torch.stack((slots, torch.full_like(slots, KEPT))) for slots in pinned]
        root = _components(torch.cat([*self._ties, *pins], dim=1), self.total)
        produced = torch.zeros(self.total, dtype=torch.bool)
        for name in self.shapes:
            produced[root[self.of(name, OUTPUT)]] = True
        produced[root[KEPT]] = False
        number = torch.where(produced, produced.cumsum(0) - 1, PINNED)
        return Coupling(
            units=int(produced.sum()),
            unit_of_output={name: number[root[self.of(name, OUTPUT)]] for name in self.shapes},
            unit_of_input={name: number[root[self.of(name, INPUT)]] for name in self.shapes},
            kept=kept,
            trains_otherwise=trains_otherwise,
        )

    def _tie_within(self, name: str, layer: nn.Module) -> None:
        """A channel-wise layer's input is its output; a grouped convolution keeps its groups alike."""
        shape, outputs, inputs = self.shapes[name], self.of(name, OUTPUT), self.of(name, INPUT)
        if is_channelwise(layer):
            self.tie(outputs, inputs)
        elif shape.separable:
            self.tie(outputs, inputs.repeat_interleave(shape.outputs_per_group))
        else:
            self.tie(outputs, outputs[: shape.outputs_per_group].repeat(shape.groups))
            self.tie(inputs, inputs[: shape.inputs_per_group].repeat(shape.groups))


def _components(ties_2T: Tensor, total: int) -> Tensor:
    """The least slot that each slot is tied to, over any number of ties: int64 [total]."""
    root = torch.arange(total)
    a_T, b_T = ties_2T
    while True:
        low_T = torch.minimum(root[a_T], root[b_T])
        lower = root.clone()
        for end_T in (a_T, b_T):
            lower.scatter_reduce_(0, end_T, low_T, "amin")
            lower.scatter_reduce_(0, root[end_T], low_T, "amin")
        lower = lower[lower]
        if torch.equal(lower, root):
            return root
        root = lower
