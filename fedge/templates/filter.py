"""An instance filter: which samples of a mini-batch are trained on.

[training.instance_filter]
kind = "mine.py:Every"
keep = 0.5
args = { nth = 2 }
"""

import torch

from fedge.training.instance_filter import Filter, MiniBatch, Selection


class Every(Filter):
    """Keeps every nth sample. `self.generator` is for random draws; tensors named in `tensors` live on from round to
    round."""

    def __init__(self, keep: float, seed: int = 0, nth: int = 2) -> None:
        super().__init__(keep, seed)
        self.nth = nth

    def select(self, batch: MiniBatch) -> Selection:
        """Indices into the batch, ascending, and weights in the loss (None: equal).

        batch.look(index) gives the network's losses on some of it, at the price of a forward pass.
        """
        return torch.arange(0, len(batch.y_B), self.nth), None
