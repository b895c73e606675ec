"""The record of a pruned network's shape: vanilla constructor + record + state dict = the very network.

    {"format": "fedge-topology", "version": 1, "input_shape": [3, 32, 32], "parameters": 139180,
     "layers": {"stem.conv": [11, 3, 1], "stem.norm": [11, 11, 11], ...},
     "kept": {"stem.conv": ["af3d", "7"], ...}}

`layers` gives [outputs, inputs, groups] of every convolution, linear and channel-wise layer. `kept` says which of the
vanilla layer's outputs and inputs those are, as masks in hexadecimal, of the layers that lost any: so that the network
can grow back (regrow.py). A record made by somebody else, or cut short, or for another network, is refused with the
name of the first layer that does not fit.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.macs import evaluating, input_of, one_instance
from fedge.training.pruning.layers import (
    LayerShape,
    channel_axis,
    channels_of,
    cuttable_layers,
    is_channelwise,
    leading,
    narrow,
)
from fedge.training.pruning.regrow import KeptChannels, regrown

FORMAT, VERSION = "fedge-topology", 1


@dataclass(frozen=True)
class Topology:
    """A network's shape: the channels of its layers, the shape [C, H, W] of one input, its parameter count.

    kept: which of the vanilla network's channels they are, by layer that lost any; None: nobody has noted it. Two
    networks of one shape are equal, whichever channels they kept.
    """

    layers: Mapping[str, LayerShape]
    input_shape: tuple[int, ...]
    parameters: int
    kept: Mapping[str, KeptChannels] | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        input_shape: tuple[int, ...],
        kept: Mapping[str, KeptChannels] | None = None,
    ) -> "Topology":
        """Read the record off `model`, whose inputs are [B, *input_shape]; `kept` as above."""
        layers = {name: channels_of(layer) for name, layer in cuttable_layers(model).items()}
        return cls(layers, tuple(input_shape), sum(p.numel() for p in model.parameters()), kept)

    def after(self, before: "Topology | None") -> "Topology":
        """This record of a network that was cut from one of the record `before`, told by the vanilla channels."""
        if before is None:
            return self
        if self.kept is None or before.kept is None:
            return replace(self, kept=None)
        kept = {
            name: self.kept[name].within(earlier) if name in self.kept else earlier
            for name, earlier in before.kept.items()
        }
        return replace(self, kept={**self.kept, **kept})

    def to_json(self) -> str:
        """One line of JSON; equal topologies give equal text."""
        layers = {name: [s.outputs, s.inputs, s.groups] for name, s in self.layers.items()}
        record: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "input_shape": list(self.input_shape),
            "parameters": self.parameters,
            "layers": layers,
        }
        if self.kept is not None:
            record["kept"] = {name: channels.to_hex() for name, channels in self.kept.items()}
        return json.dumps(record, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Topology":
        """Parse what `to_json` wrote; UserError says what is wrong with anything else."""
        try:
            record = json.loads(text)
        except ValueError as error:
            raise UserError(
                f"the topology record is not JSON ({error}): it is corrupt, prune again"
            ) from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise UserError(f'the topology record has no "format": "{FORMAT}": this is not a topology')
        if record.get("version") != VERSION:
            raise UserError(
                f"the topology record has version {record.get('version')!r}, this fedge reads {VERSION}: "
                "prune again, or use the fedge that wrote it"
            )
        if not isinstance(record.get("layers"), dict) or not isinstance(record.get("kept", {}), dict):
            raise UserError("the topology record has no layers: it is corrupt, prune again")
        return cls(
            layers={name: _layer_shape(name, entry) for name, entry in record["layers"].items()},
            input_shape=tuple(_positive_integers("input_shape", record.get("input_shape"))),
            parameters=_positive_integers("parameters", [record.get("parameters")])[0],
            kept={name: KeptChannels.from_hex(name, entry) for name, entry in record["kept"].items()}
            if "kept" in record
            else None,
        )

    def rebuild(self, factory: Callable[[], nn.Module]) -> nn.Module:
        """The network of this shape: `factory()` makes the vanilla one, which is narrowed.

        Its weights are the vanilla network's first channels, to be replaced by `load_state_dict`. UserError
        names the layer where the record does not belong to the factory's network or contradicts itself.
        """
        model = factory()
        vanilla = cuttable_layers(model)
        for name in self.layers.keys() ^ vanilla.keys():
            have, lack = ("record", "network") if name in self.layers else ("network", "record")
            raise UserError(
                f"layer {name!r} is in the topology's {have} and not in the {lack}: "
                "the record belongs to another network"
            )
        for name, layer in vanilla.items():
            shape, full = self.layers[name], channels_of(layer)
            _require_cut_of(name, shape, full, channelwise=is_channelwise(layer))
            narrow(layer, *leading(shape, full))
        self._require_fit(model)
        return model

    def regrow(self, model: nn.Module, vanilla: nn.Module) -> nn.Module:
        """`vanilla`, changed in place: its own weights where `model`, of this record, lost channels; the others' as
        `model` has trained them. UserError where the record does not say which channels `model` kept."""
        if self.kept is None:
            raise UserError(
                "the topology record does not say which channels were kept (an earlier fedge wrote it), so that the "
                "network cannot grow back: start the run over"
            )
        return regrown(model, self.kept, vanilla)

    def _require_fit(self, model: nn.Module) -> None:
        """Run the network once on two inputs of zeros, as one has no statistics; name neighbours that disagree."""
        with evaluating(model), _watching_inputs(model) as last, torch.no_grad():
            try:
                zeros_1CHW = one_instance(model, self.input_shape)
                model(torch.cat([zeros_1CHW, zeros_1CHW]))
            except UserError:
                raise
            except (RuntimeError, ValueError) as error:
                raise UserError(
                    f"the topology record contradicts itself after layer {last[0]!r} "
                    f"({str(error).splitlines()[0]}): it is corrupt, prune again"
                ) from None
        parameters = sum(p.numel() for p in model.parameters())
        if parameters != self.parameters:
            raise UserError(
                f"the rebuilt network has {parameters} parameters, the topology record says {self.parameters}: "
                "it is corrupt or belongs to another network"
            )


def _positive_integers(what: str, values: Any) -> list[int]:
    if not isinstance(values, list) or not all(type(v) is int and v > 0 for v in values):
        raise UserError(
            f"the topology record gives {values!r} for {what}, integers above 0 are needed: corrupt"
        )
    return values


def _layer_shape(name: str, entry: Any) -> LayerShape:
    numbers = _positive_integers(f"layer {name!r}", entry)
    if len(numbers) != 3:
        raise UserError(
            f"the topology record gives {entry!r} for layer {name!r}, [outputs, inputs, groups] is needed: corrupt"
        )
    return LayerShape(*numbers)


def _require_cut_of(name: str, shape: LayerShape, full: LayerShape, *, channelwise: bool) -> None:
    """A layer may lose channels; its groups stay whole groups of equal size."""
    fits = shape.outputs <= full.outputs and shape.inputs <= full.inputs
    if channelwise:
        fits &= shape.outputs == shape.inputs == shape.groups
    elif full.separable:
        fits &= shape.groups == shape.inputs and shape.outputs == shape.groups * full.outputs_per_group
    else:
        fits &= shape.groups == full.groups
        fits &= shape.outputs % shape.groups == 0 and shape.inputs % shape.groups == 0
    if not fits:
        raise UserError(
            f"layer {name!r}: the topology record says {shape}, which is no cut of the network's {full}: "
            "it is corrupt or belongs to another network"
        )


@contextmanager
def _watching_inputs(model: nn.Module) -> Iterator[list[str]]:
    """Check the channels that arrive at each layer; yields the name of the layer that ran last."""
    last = ["the input"]

    def hook(name: str, expected: int) -> Callable[..., None]:
        def check(layer: nn.Module, inputs: tuple[Tensor, ...], by_keyword: dict[str, Tensor]) -> None:
            arriving = input_of(inputs, by_keyword).shape[channel_axis(layer)]
            if arriving != expected:
                raise UserError(
                    f"layer {name!r} has {expected} input channels in the topology record, {arriving} arrive "
                    f"from {last[0]!r}: the record is corrupt or belongs to another network"
                )
            last[0] = name

        return check

    handles = [
        layer.register_forward_pre_hook(hook(name, channels_of(layer).inputs), with_kwargs=True)
        for name, layer in cuttable_layers(model).items()
    ]
    try:
        yield last
    finally:
        for handle in handles:
            handle.remove()
