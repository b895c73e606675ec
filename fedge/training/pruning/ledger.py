"""How many parameters a cut removes: the running account that pruning stops by.

exact:  cost(u) = parameters of the layers of u now - after, with every earlier cut counted
adapt:  the estimate of ADaPT's authors: weights of the ranked convolutions alone (no norm, bias, shortcut)
"""

import copy
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import nn

from fedge.training.pruning.coupling import PINNED, Coupling
from fedge.training.pruning.criteria import PROJECTION_NAMES
from fedge.training.pruning.layers import LayerShape, channels_of, cuttable_layers, price_of
from fedge.training.pruning.tracing.labels import distinct


@dataclass
class Loss:
    """Channels that one layer loses with one unit."""

    outputs: int = 0
    inputs: int = 0


class Ledger:
    """Channels left in every layer, parameters removed so far, and what cutting one more unit would remove."""

    def __init__(self, model: nn.Module, coupling: Coupling, accounting: str = "exact") -> None:
        self.total = sum(p.numel() for p in model.parameters())
        self.removed = 0
        self._accounting = accounting
        layers = cuttable_layers(model)
        self._full = {name: channels_of(layer) for name, layer in layers.items()}
        self._shapes = dict(self._full)
        self._prices = {name: price_of(layer) for name, layer in layers.items()}
        self._losses = self._losses_by_unit(coupling)
        joined = self._joined_layers(coupling, model)
        self.filters = {
            name: (self._shapes[name].outputs, name in joined) for name in coupling.producers(model)
        }

    def leaves(self, unit: int, floors: dict[str, int]) -> bool:
        """True if without this unit every layer keeps its floor of filters, and stays the kind it is."""
        for name in self._losses[unit]:
            left = self._shape_without(name, unit)
            if left.outputs < floors.get(name, 1) or left.separable != self._full[name].separable:
                return False  # a grouped convolution must not become a separable one, whose units are others
        return True

    def cost(self, unit: int) -> int:
        """Parameters that go with this unit, as the accounting sees it."""
        if self._accounting == "adapt":
            return self._estimate(unit)
        total = 0
        for name in self._losses[unit]:
            price = self._prices[name]
            total += price.parameters(self._shapes[name]) - price.parameters(self._shape_without(name, unit))
        return total

    def cut(self, unit: int, cost: int) -> None:
        """Book the unit as cut, at the cost that `cost` gave."""
        for name in self._losses[unit]:
            self._shapes[name] = self._shape_without(name, unit)
        self.removed += cost

    def cut_together(self, units: list[int], floors: dict[str, int]) -> "Ledger | None":
        """This ledger with all of these cut, one after the other; None if that is below a floor, or none are given."""
        if not units:
            return None
        after = copy.copy(self)
        after._shapes = dict(self._shapes)
        for unit in units:
            if not after.leaves(unit, floors):
                return None
            after.cut(unit, after.cost(unit))
        return after

    def book(self, after: "Ledger") -> None:
        """Become what `cut_together` gave."""
        self._shapes, self.removed = after._shapes, after.removed

    def family(self, unit: int) -> frozenset[tuple[str, int]]:
        """The layers that lose filters with this unit, and how many: units alike in it make up one width."""
        return frozenset((name, loss.outputs) for name, loss in self._losses[unit].items() if loss.outputs)

    def _estimate(self, unit: int) -> int:
        """`losses` runs in the network's order: what feeds a projection is the last filter before it."""
        total = own = 0
        for name, loss in self._losses[unit].items():
            price, shape, full = self._prices[name], self._shapes[name], self._full[name]
            if not price.taps:
                continue
            if not PROJECTION_NAMES.isdisjoint(name.split(".")):
                total += own if loss.inputs else 0
                continue
            total += price.weights(shape) - price.weights(self._shape_without(name, unit))
            if loss.outputs and not full.separable:
                own = loss.outputs * full.inputs_per_group * price.taps
        return total

    def _shape_without(self, name: str, unit: int) -> LayerShape:
        shape, loss = self._shapes[name], self._losses[unit][name]
        inputs = shape.inputs - loss.inputs
        groups = inputs if self._full[name].separable else shape.groups
        return LayerShape(shape.outputs - loss.outputs, inputs, groups)

    def _losses_by_unit(self, coupling: Coupling) -> list[dict[str, Loss]]:
        losses: list[dict[str, Loss]] = [defaultdict(Loss) for _ in range(coupling.units)]
        for name in self._full:
            for unit in coupling.unit_of_output[name].tolist():
                if unit != PINNED:
                    losses[unit][name].outputs += 1
            for unit in coupling.unit_of_input[name].tolist():
                if unit != PINNED:
                    losses[unit][name].inputs += 1
        return losses

    def _joined_layers(self, coupling: Coupling, model: nn.Module) -> set[str]:
        """Layers whose outputs meet another layer's in a sum: their unit has several independent sources."""
        sources = {
            name: coupling.unit_of_output[name]
            for name, layer in coupling.producers(model).items()
            if not channels_of(layer).separable
        }
        count_U = torch.zeros(coupling.units, dtype=torch.int64)
        for unit_O in sources.values():
            count_U[distinct(unit_O[unit_O != PINNED])] += 1
        return {
            name for name, unit_O in sources.items() if bool((count_U[unit_O[unit_O != PINNED]] > 1).any())
        }
