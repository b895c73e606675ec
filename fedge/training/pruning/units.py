"""Which channels of a network stand or fall together: its *units*, the smallest pieces that pruning can cut.

A residual sum ties channel i of every branch; a batch norm goes with its convolution; a grouped convolution keeps
its groups alike; the channels of the network's output never go. Torch-Pruning (Fang et al., DepGraph, CVPR 2023)
traces the network and finds which layers touch; from its groups we close the relation channel by channel:

    slot   = (layer, output or input, channel index)
    unit   = connected component of slots under "if this goes, that must go"
    pinned = a unit that holds an output of the network, or enters a layer that mixes channels (GroupNorm, ...)

What we do differently from Torch-Pruning's own pruner: grouped convolutions are closed under their groups, and
the outputs are found for any last layer (there, the caller lists the layers to ignore).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
import torch_pruning
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.macs import input_of
from fedge.training.pruning.layers import LayerShape, channel_axis, cuttable_layers, is_channelwise, shape_of

OUTPUT, INPUT = 0, 1
PINNED = -1


@dataclass(frozen=True)
class Coupling:
    """The units of a network, numbered 0 .. `units` - 1.

    `unit_of_output[layer]` int64 [outputs] and `unit_of_input[layer]` int64 [inputs] give each channel's unit, or
    `PINNED` where it is never cut.
    """

    units: int
    unit_of_output: dict[str, Tensor]
    unit_of_input: dict[str, Tensor]

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


def find_coupling(model: nn.Module, example_input: Tensor) -> Coupling:
    """Trace `model` with `example_input` [B, C, ...] and return its units.

    `model` must be a copy that the caller can spare: tracing leaves it in evaluation mode. Every parameter
    must require a gradient, or its layer is not seen. UserError if no channel could be cut.
    """
    layers = cuttable_layers(model)
    slots = _Slots({name: shape_of(layer) for name, layer in layers.items()})
    for name, layer in layers.items():
        slots.couple_within(name, layer)
    names = {layer: name for name, layer in layers.items()}
    for root, target, side, root_channels, channels in _traced_ties(model, example_input):
        if root in names and target in names:
            slots.couple(names[root], root_channels, names[target], side, channels)
        elif root in names:
            slots.pin(names[root], OUTPUT, root_channels)
        elif target in names:
            slots.pin(names[target], side, channels)
    coupling = slots.close()
    if not coupling.units:
        raise UserError(
            "the network has no channel that can be cut: every one reaches its output or a layer that mixes "
            "channels (GroupNorm, LayerNorm); use batch norm, or leave pruning out"
        )
    return coupling


class _Pictured(nn.Module):
    """The network behind a layer that stands for its input, so that what touches the input is seen to."""

    def __init__(self, model: nn.Module, example_input: Tensor) -> None:
        super().__init__()
        channels, dimensions = example_input.shape[1], example_input.dim() - 2
        layer = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions]
        self.picture = layer(channels, channels, *[1] * bool(dimensions)).to(example_input)
        self.model = model

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.model(self.picture(x_BCHW)) * 1  # the product is no layer: it stands for the output


Tie = tuple[nn.Module, nn.Module, int, list[int], list[int]]


def _traced_ties(model: nn.Module, example_input: Tensor) -> Iterator[Tie]:
    """Torch-Pruning's groups as (root, target, side of the target, root's channels, target's channels).

    Operations without parameters are left out. What is no cuttable layer of `model` is its input, its output, or
    a layer that mixes channels, and its partner in the tie must not be cut.
    """
    graph = torch_pruning.DependencyGraph()
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        pictured = _Pictured(model, example_input)
        graph.build_dependency(pictured, example_input, verbose=False)
    for group in graph.get_all_groups():
        root = group[0].dep.target.module
        for item in group:
            node, handler = item.dep.target, item.dep.handler
            if _is_passive(graph, node.module):
                continue
            reads = graph.is_in_channel_pruning_fn(handler) and not graph.is_out_channel_pruning_fn(handler)
            yield root, node.module, INPUT if reads else OUTPUT, item.root_idxs, item.idxs


def _is_passive(graph: torch_pruning.DependencyGraph, operation: nn.Module) -> bool:
    """True for operations that only carry channels along: sums, activations, concatenations, reshapes."""
    ops = graph.ops
    if isinstance(operation, nn.PReLU):
        return shape_of(operation) is None
    carrying = ("CONCAT", "SPLIT", "ELEMENTWISE", "RESHAPE", "UNBIND", "EXPAND", "SLICE")
    return ops.module2type(operation) in {ops.OPTYPE[name] for name in carrying}


class _Slots:
    """Union-find over (layer, side, channel); pinned slots are joined to slot 0."""

    def __init__(self, shapes: dict[str, LayerShape]) -> None:
        self.shapes = shapes
        sizes = [size for shape in shapes.values() for size in (shape.outputs, shape.inputs)]
        *starts, total = accumulate(sizes, initial=1)
        self.start = {
            (name, side): starts[2 * index + side]
            for index, name in enumerate(shapes)
            for side in (OUTPUT, INPUT)
        }
        self.parent = list(range(total))

    def root(self, slot: int) -> int:
        while self.parent[slot] != slot:
            self.parent[slot] = self.parent[self.parent[slot]]
            slot = self.parent[slot]
        return slot

    def join(self, a: int, b: int) -> None:
        low, high = sorted((self.root(a), self.root(b)))
        self.parent[high] = low

    def pin(self, name: str, side: int, channels: list[int]) -> None:
        for channel in channels:
            self.join(0, self.start[name, side] + channel)

    def couple(self, root: str, root_channels: list[int], name: str, side: int, channels: list[int]) -> None:
        for channel_of_root, channel in zip(root_channels, channels, strict=True):
            self.join(self.start[root, OUTPUT] + channel_of_root, self.start[name, side] + channel)

    def couple_within(self, name: str, layer: nn.Module) -> None:
        """A channel-wise layer's input is its output; a grouped convolution keeps its groups alike."""
        shape, outputs, inputs = self.shapes[name], self.start[name, OUTPUT], self.start[name, INPUT]
        if is_channelwise(layer):
            for channel in range(shape.outputs):
                self.join(outputs + channel, inputs + channel)
        elif shape.separable:
            for channel in range(shape.outputs):
                self.join(outputs + channel, inputs + channel // shape.outputs_per_group)
        else:
            for start, count, per_group in (
                (outputs, shape.outputs, shape.outputs_per_group),
                (inputs, shape.inputs, shape.inputs_per_group),
            ):
                for channel in range(per_group, count):
                    self.join(start + channel % per_group, start + channel)

    def close(self) -> Coupling:
        """Number the units in the order of their first slot. An input that no traced output feeds is pinned."""
        produced = {
            self.root(slot)
            for name, shape in self.shapes.items()
            for slot in range(self.start[name, OUTPUT], self.start[name, OUTPUT] + shape.outputs)
        }
        produced.discard(self.root(0))
        number = {root: index for index, root in enumerate(sorted(produced))}

        def units(name: str, side: int, count: int) -> Tensor:
            start = self.start[name, side]
            return torch.tensor([number.get(self.root(slot), PINNED) for slot in range(start, start + count)])

        return Coupling(
            units=len(number),
            unit_of_output={name: units(name, OUTPUT, shape.outputs) for name, shape in self.shapes.items()},
            unit_of_input={name: units(name, INPUT, shape.inputs) for name, shape in self.shapes.items()},
        )
