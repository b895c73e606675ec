"""A criterion: what a unit (channels that are cut together) is worth to this client; the lowest are cut first.

[training.pruning]
criterion = "mine.py:by_variance"
"""

import torch
from torch import Tensor, nn

from fedge.training.pruning import Evidence
from fedge.training.pruning.units import PINNED


def by_variance(evidence: Evidence) -> Tensor:
    """One score per unit [U]: how much the weights of its largest filter vary.

    evidence.model is a copy to look at, evidence.data("name") gives the client's own (x, y) to look at it with.
    """
    score_U = torch.zeros(evidence.coupling.units)
    for name, layer in evidence.model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and name in evidence.coupling.unit_of_output:
            unit_C = evidence.coupling.unit_of_output[name]
            cut_C = unit_C != PINNED  # the others are never cut
            variance_C = layer.weight.detach().flatten(1).var(1)
            score_U.scatter_reduce_(0, unit_C[cut_C], variance_C[cut_C], "amax")
    return score_U
