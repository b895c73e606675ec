"""A decided cut: which units of a network go. It can be applied, or imitated by zeroing the same channels."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedge.training.pruning.coupling import PINNED, Coupling
from fedge.training.pruning.layers import cuttable_layers, narrow
from fedge.training.pruning.regrow import KeptChannels
from fedge.training.pruning.spare import spare_copy
from fedge.training.torch_device import drawing_from
from fedge.training.torch_private import tree_leaves


@dataclass(frozen=True)
class Cut:
    """`removed_U` bool [units] of the network's `coupling`."""

    coupling: Coupling
    removed_U: Tensor

    def kept_outputs(self, layer: str) -> Tensor:
        """bool [outputs]: what the layer still produces."""
        return self._kept(self.coupling.unit_of_output[layer])

    def kept_inputs(self, layer: str) -> Tensor:
        """bool [inputs]: what the layer still reads."""
        return self._kept(self.coupling.unit_of_input[layer])

    def kept(self, model: nn.Module) -> dict[str, KeptChannels]:
        """Which channels of `model`, which is not cut yet, are kept, by layer that loses any."""
        masks = {name: (self.kept_outputs(name), self.kept_inputs(name)) for name in cuttable_layers(model)}
        return {
            name: KeptChannels(*(tuple(mask_C.nonzero().flatten().tolist()) for mask_C in both))
            for name, both in masks.items()
            if not all(bool(mask_C.all()) for mask_C in both)
        }

    def apply(self, model: nn.Module) -> None:
        """Cut `model` in place."""
        for name, layer in cuttable_layers(model).items():
            narrow(
                layer, self.kept_outputs(name).nonzero().flatten(), self.kept_inputs(name).nonzero().flatten()
            )

    def error(self, model: nn.Module, x_BCHW: Tensor) -> float:
        """Cut `model` and return how far its outputs on `x_BCHW` are from its own with the channels zeroed.

        In units of the largest output; infinity where the cut layers no longer fit each other. 0 but for rounding
        if the coupling is right. Where other layers run in training, a pass in training mode is held against too.
        """
        training = spare_copy(model).train() if self.coupling.trains_otherwise else None
        error = self._error(model, x_BCHW)
        if training is not None:
            two_BCHW = torch.cat([x_BCHW, x_BCHW]) if len(x_BCHW) == 1 else x_BCHW
            error = max(error, self._error(training, two_BCHW))
        return error

    def _error(self, model: nn.Module, x_BCHW: Tensor) -> float:
        with torch.no_grad():
            with self.coupling.at_consumers(model, self._zeroed):
                expected, again = _outputs(model, x_BCHW, 0), []
                if model.training:
                    again = _outputs(model, x_BCHW, 1)
            try:
                self.apply(model)
                got = _outputs(model, x_BCHW, 0)
                if any(not torch.equal(a, b) for a, b in zip(expected, again, strict=False)):
                    return 0.0  # at random, as by dropout: that the layers fit each other is all that can be told
                return max(_difference(a, b) for a, b in zip(got, expected, strict=True))
            except Exception:  # a layer that cannot be cut, a forward pass that no longer fits
                return float("inf")

    def _zeroed(self, layer: str, axis: int, x: Tensor) -> Tensor:
        """A reader's input with zeros where a removed unit arrives."""
        shape = [1] * x.dim()
        shape[axis] = -1
        return x * self.kept_inputs(layer).to(x).view(shape)

    def _kept(self, unit_C: Tensor) -> Tensor:
        return ~self.removed_U[unit_C.clamp_min(0)] | (unit_C == PINNED)


def _outputs(model: nn.Module, x_BCHW: Tensor, seed: int) -> list[Tensor]:
    with drawing_from(seed, x_BCHW.device):
        return [leaf.clone() for leaf in tree_leaves(model(x_BCHW)) if isinstance(leaf, Tensor)]


def _difference(got: Tensor, expected: Tensor) -> float:
    if got.shape != expected.shape:
        return float("inf")
    tiny = torch.finfo(expected.dtype).tiny
    return float((got - expected).abs().max() / expected.abs().max().clamp_min(tiny))
