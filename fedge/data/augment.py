"""Random crop and horizontal flip of a batch, as usual for CIFAR (ADaPT's training transform)."""

import torch
from torch.nn.functional import pad

PADDING = 4  # pixels of black on every side before the crop


def crop_flip(x_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each picture is padded by 4 pixels, cropped back at random, and mirrored with probability 1/2.

    Same shape, type and device; all randomness comes from `generator` (on the CPU). Meant for raw pixels: the padding
    is black, not the mean.
    """
    batch, _, height, width = x_BCHW.shape
    top_B, left_B = torch.randint(2 * PADDING + 1, (2, batch), generator=generator)
    mirrored_B = torch.rand(batch, generator=generator) < 0.5
    rows_BH = top_B[:, None] + torch.arange(height)
    columns_BW = left_B[:, None] + torch.arange(width)
    columns_BW = torch.where(mirrored_B[:, None], columns_BW.flip(1), columns_BW)
    padded_BHWC = pad(x_BCHW, [PADDING] * 4).permute(0, 2, 3, 1)
    picture_B = torch.arange(batch)
    picture_B, rows_BH, columns_BW = (index.to(x_BCHW.device) for index in (picture_B, rows_BH, columns_BW))
    return padded_BHWC[picture_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]].permute(
        0, 3, 1, 2
    )
