"""A decided cut: which units of a network go. It can be applied, or imitated by zeroing the same channels."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedge.training.pruning.layers import cuttable_layers, narrow
from fedge.training.pruning.units import PINNED, Coupling


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

    def apply(self, model: nn.Module) -> None:
        """Cut `model` in place."""
        for name, layer in cuttable_layers(model).items():
            narrow(
                layer, self.kept_outputs(name).nonzero().flatten(), self.kept_inputs(name).nonzero().flatten()
            )

    def error(self, model: nn.Module, x_BCHW: Tensor) -> float:
        """Cut `model` and return how far its outputs on `x_BCHW` are from its own with the channels zeroed.

        In units of the largest output; infinity where the cut layers no longer fit each other. 0 but for rounding
        if the coupling is right.
        """
        with torch.no_grad():
            with self.coupling.at_consumers(model, self._zeroed):
                expected = model(x_BCHW)
            try:
                self.apply(model)
                difference = (model(x_BCHW) - expected).abs().max()
            except Exception:  # a layer that cannot be cut, a forward pass that no longer fits
                return float("inf")
            return float(difference / expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny))

    def _zeroed(self, layer: str, axis: int, x: Tensor) -> Tensor:
        """A reader's input with zeros where a removed unit arrives."""
        shape = [1] * x.dim()
        shape[axis] = -1
        return x * self.kept_inputs(layer).to(x).view(shape)

    def _kept(self, unit_C: Tensor) -> Tensor:
        return ~self.removed_U[unit_C.clamp_min(0)] | (unit_C == PINNED)
