"""Re-growing: a pruned network goes back to the channels of the vanilla one that it was cut from.

    channels that were kept      their trained weights and statistics
    channels that were cut away  those of the vanilla network, as it is given

A weight between two channels was kept where both were. Of RigL's drop and grow (Evci et al., arXiv 1911.11134) this is
the growing, of whole channels, and they come back as they were shipped, not as zeros.

Where a weight stood is found by the cut itself: a copy of the vanilla network that holds the number of each weight's
place, and not its value, is narrowed as the network was.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.pruning.layers import channels_of, cuttable_layers, narrow
from fedge.training.pruning.spare import spare_copy


class KeptChannels(NamedTuple):
    """Of a layer: the numbers of the vanilla layer's outputs and inputs that are left, in rising order."""

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]

    def within(self, before: "KeptChannels") -> "KeptChannels":
        """The same channels by their numbers in the layer from which `before` were kept."""
        return KeptChannels(
            tuple(before.outputs[place] for place in self.outputs),
            tuple(before.inputs[place] for place in self.inputs),
        )

    def to_hex(self) -> list[str]:
        """Both as masks: bit c of the number is channel c."""
        return [f"{sum(1 << channel for channel in channels):x}" for channels in self]

    @classmethod
    def from_hex(cls, layer: str, entry: Any) -> "KeptChannels":
        """What `to_hex` gave for that layer. UserError for anything else."""
        try:
            outputs, inputs = (int(mask, 16) for mask in entry)
            if min(outputs, inputs) < 0:
                raise ValueError
        except (TypeError, ValueError):
            raise UserError(
                f"the topology record gives {entry!r} for the channels that layer {layer!r} kept, two masks in "
                "hexadecimal are needed: it is corrupt, prune again"
            ) from None
        return cls(_bits(outputs), _bits(inputs))


def _bits(mask: int) -> tuple[int, ...]:
    return tuple(place for place in range(mask.bit_length()) if mask >> place & 1)


def regrown(model: nn.Module, kept: Mapping[str, KeptChannels], vanilla: nn.Module) -> nn.Module:
    """`vanilla` with what `model`, which was cut from its like, has learnt in the channels that it kept.

    kept: by layer of `model`; layers that are not there kept all. `vanilla` is changed in place and returned.
    UserError where `model` is no such cut of it. Nothing was cut: all of `model`'s weights; nothing was trained: the
    vanilla network, bit for bit.
    """
    places = _places(vanilla, kept)
    whole, trained = vanilla.state_dict(), model.state_dict()
    for name, value in whole.items():
        if not isinstance(value, Tensor):  # a state of the module's own making
            continue
        place, small = places.get(name), trained.get(name)
        if place is None or small is None or place.shape != small.shape:
            raise UserError(
                f"the network's {name!r} is no cut of the vanilla network's by the channels on record: the record "
                "belongs to another network"
            )
        grown = value.detach().cpu().clone().contiguous()
        grown.view(-1)[place.flatten()] = small.detach().to(grown).flatten()
        whole[name] = grown
    vanilla.load_state_dict(whole)
    return vanilla


def _places(vanilla: nn.Module, kept: Mapping[str, KeptChannels]) -> dict[str, Tensor]:
    """Of every weight and statistic of the cut network: where each stands in the vanilla tensor, flattened."""
    numbered = spare_copy(vanilla).cpu().double()  # 64-bit floats count far enough
    with torch.no_grad():
        for tensor in filter(torch.is_tensor, numbered.state_dict().values()):
            tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
    layers = cuttable_layers(numbered)
    for name, channels in kept.items():
        if name not in layers:
            raise UserError(
                f"the topology record kept channels of layer {name!r}, which is not in the network: the record belongs "
                "to another network"
            )
        full = channels_of(layers[name])
        if max(channels.outputs, default=0) >= full.outputs or max(channels.inputs, default=0) >= full.inputs:
            raise UserError(
                f"layer {name!r}: the topology record kept channels that the network's {full} does not have: the "
                "record belongs to another network"
            )
        narrow(layers[name], *(torch.tensor(part, dtype=torch.int64) for part in channels))
    return {name: tensor.long() for name, tensor in numbered.state_dict().items() if torch.is_tensor(tensor)}
