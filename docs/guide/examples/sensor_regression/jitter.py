"""Random changes to training batches."""

import torch


def jitter(x_BCHW, generator):
    """Each window's signals, a little louder or softer."""
    gain_B111 = 1 + 0.1 * torch.randn(len(x_BCHW), 1, 1, 1, generator=generator)
    return x_BCHW * gain_B111
