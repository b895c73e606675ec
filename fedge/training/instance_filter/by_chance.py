"""Filters that toss a coin: the baselines which a filter that looks at the data has to beat.

    random   each instance kept with probability `keep` (RS2-like: a fresh subset every epoch)
    smb      stochastic mini-batch (E2-Train, NeurIPS 2019): the whole mini-batch kept with probability `keep`

Both cost nothing. With `smb` the network takes `keep` times the steps of dense training: decay the learning rate
over the steps that are made, not over those that are skipped.
"""

import torch

from fedge.training.instance_filter.base import Filter, MiniBatch, Selection


class RandomFilter(Filter):
    """Keeps each instance with probability `keep`; 1 keeps all."""

    def select(self, batch: MiniBatch) -> Selection:
        draw_B = torch.rand(len(batch.y_B), generator=self.generator)
        return (draw_B < self.keep).nonzero().flatten(), None


class MiniBatchFilter(Filter):
    """Keeps the whole mini-batch with probability `keep`, else nothing of it; 1 keeps all."""

    def select(self, batch: MiniBatch) -> Selection:
        kept = torch.rand((), generator=self.generator) < self.keep
        return torch.arange(len(batch.y_B) if kept else 0), None
