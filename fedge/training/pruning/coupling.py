"""Which channels of a network stand or fall together: its *units*, the smallest pieces that pruning can cut."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from fedge.training.macs import input_of
from fedge.training.pruning.layers import channel_axis, cuttable_layers, is_channelwise, shape_of

PINNED = -1


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
            and not shape_of(layer).separable
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
