"""A criterion and a filter of one's own: both are named in scenario.toml."""

import torch
from torch import Tensor, nn

from fedge.training.instance_filter import Filter, MiniBatch, Selection
from fedge.training.pruning import Evidence
from fedge.training.pruning.units import PINNED


def norm_scale(evidence: Evidence) -> Tensor:
    """A unit is worth the least scale of its batch norms (Network Slimming, Liu et al., ICCV 2017)."""
    score_U = torch.full((evidence.coupling.units,), torch.inf)  # without a norm: never cut
    for name, layer in evidence.model.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            unit_C = evidence.coupling.unit_of_output[name]
            cut_C = unit_C != PINNED  # channels that are never cut have no unit
            score_U.scatter_reduce_(0, unit_C[cut_C], layer.weight.detach()[cut_C].abs(), "amin")
    return score_U


class RareClasses(Filter):
    """Keeps the samples whose classes are the rarest in the mini-batch."""

    def select(self, batch: MiniBatch) -> Selection:
        count_B = batch.y_B.bincount()[batch.y_B]
        kept = max(1, round(self.keep * len(count_B)))
        return count_B.argsort(stable=True)[:kept], None
