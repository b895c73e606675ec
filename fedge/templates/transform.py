"""A transform: random changes to the batches that a device trains on.

[training]
transform = "augment.py:jitter"
"""

import torch
from torch import Generator, Tensor


def jitter(x_BCHW: Tensor, generator: Generator) -> Tensor:
    """The batch [B, C, H, W], each sample a little brighter or darker; of the same shape and type.

    x_BCHW: float32, before it is normalised; pictures are 0..1. All chance comes from `generator`, so that a run is the
    same wherever it runs.
    """
    gain_B111 = 1 + 0.2 * (torch.rand(len(x_BCHW), 1, 1, 1, generator=generator) - 0.5)
    return (x_BCHW * gain_B111).clamp(0, 1)
