"""How sure a network is of its answers, held against how often they are right.

EM takes a network at its word. One that is less sure than it could be (it was trained for a few epochs) lets the prior
decide what it knows itself, and the estimate runs away; dividing its logits by a temperature below 1 mends that. A
network that is too sure has one above 1. (Temperature scaling: Guo et al., arXiv 1706.04599.) Shapes: N samples, C
classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST, MOST, STEP = 0.5, 2.0, 0.05
"""Samples that a network was trained on flatter it, and without a bound they could make it as sure as can be."""


def fitted_temperature(logits_NC: Tensor, y_N: Tensor) -> float:
    """By which logits are divided so that the labels are likeliest; 1 without a sample. From LEAST to MOST in STEPs."""
    if not len(y_N):
        return 1.0
    tried = [round(LEAST + STEP * step, 2) for step in range(round((MOST - LEAST) / STEP) + 1)]
    losses = torch.stack([F.cross_entropy(logits_NC.double() / temperature, y_N) for temperature in tried])
    return tried[int(losses.argmin())]
