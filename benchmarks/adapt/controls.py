"""Controls of the ADaPT benchmark: one criterion's widths, filled in another criterion's order.

A criterion decides two things at once: how many channels every layer keeps, and which. A control takes the scores
of `widths`, and hands them out anew within each set of coupled layers, in the order of `order`:

    score(u) = s_(r)   with  r = rank of u by `order`,  s_(1) <= s_(2) <= ... `widths`' scores,  both within u's layers

The same number of units falls below any threshold, so parameters and MACs left are those of `widths`, exactly.
"""

from types import MappingProxyType

import torch
from torch import Tensor

from fedge.training.pruning.criteria import CRITERIA, Criterion, Evidence
from fedge.training.pruning.units import PINNED


def reordered(widths: str, order: str) -> Criterion:
    """The criterion that keeps as many channels as `widths` does and the ones that `order` would."""

    def rank(evidence: Evidence) -> Tensor:
        score_U, order_U = CRITERIA[widths](evidence), CRITERIA[order](evidence)
        layers_U = _layers_of_units(evidence)
        for layers in layers_U.unique():
            units = (layers_U == layers).nonzero().flatten()
            score_U[units[order_U[units].argsort()]] = score_U[units].sort().values
        return score_U

    return rank


def _layers_of_units(evidence: Evidence) -> Tensor:
    """A number per unit [units], the same for units that the same layers produce."""
    producers = evidence.coupling.producers(evidence.model)
    produced_UL = torch.zeros(evidence.coupling.units, len(producers))
    for column, name in enumerate(producers):
        unit_O = evidence.coupling.unit_of_output[name]
        produced_UL[unit_O[unit_O != PINNED], column] = 1
    return produced_UL.unique(dim=0, return_inverse=True)[1]


CONTROLS = MappingProxyType(
    {f"{order} at taylor's widths": reordered("taylor", order) for order in ("l1", "random")}
)
