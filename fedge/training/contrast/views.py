"""Random views of a sample that keep its label: what NT-Xent is to find alike.

    pictures    crop of 20 to 100 % of the area, sides 3:4 to 4:3, back to size; mirrored by 1/2; brightness, contrast
                and saturation times 0.6 to 1.4 with probability 0.8; grey with probability 0.2
    windows     of a sensor, one number high: channels scaled by N(1, 0.1^2); noise of 0.05 of the channel's own
                deviation; cut in four and put together in another order with probability 1/2

Those of pictures are SimCLR's (arXiv 2002.05709, appendix A) without blur, as it has them for CIFAR, and without a turn
of the hue; the windows' are of Um et al. (ICMI 2017, arXiv 1706.00527). They see a mini-batch on its own scale, before
it is normalised, and need a scale that begins at 0 for pictures. Shapes: B samples [C, H, W].
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_AREA, MOST_STRETCH = 0.2, 4 / 3
STRENGTH, COLOURED, GREY = 0.4, 0.8, 0.2
SCALE_STD, JITTER, PIECES = 0.1, 0.05, 4
_LUMA = (0.299, 0.587, 0.114)

Views = Callable[[Tensor, torch.Generator], Tensor]


def views_for(shape: tuple[int, int, int]) -> Views:
    """Of samples [C, H, W]: one number high is a sensor's window, else it is a picture."""
    return window_view if shape[1] == 1 else picture_view


def picture_view(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """A view of each picture, 0..1."""
    return _colours(_crops(x_BCHW, generator), generator)


def window_view(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """A view of each window."""
    batch, channels = x_BCHW.shape[:2]
    scale_BC11 = 1 + SCALE_STD * torch.randn(batch, channels, 1, 1, generator=generator)
    return _permuted(jittered(x_BCHW, generator) * scale_BC11, generator)


def jittered(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """With noise of a twentieth of each channel's own deviation: the view by which windows are scored."""
    noise_BCHW = torch.randn(x_BCHW.shape, generator=generator)
    return x_BCHW + JITTER * x_BCHW.std((2, 3), keepdim=True, correction=0) * noise_BCHW


def _crops(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Crops, back to size, half of them mirrored."""
    batch = len(x_BCHW)
    area_B, stretch_B, left_B, top_B, side_B = torch.rand(5, batch, generator=generator)
    side = (LEAST_AREA + (1 - LEAST_AREA) * area_B).sqrt()
    ratio = ((2 * stretch_B - 1) * math.log(MOST_STRETCH) / 2).exp()
    width_B, height_B = (side * ratio).clamp(max=1), (side / ratio).clamp(max=1)
    sign_B = torch.where(side_B < 0.5, -1.0, 1.0)
    turn_B23 = torch.zeros(batch, 2, 3)
    turn_B23[:, 0, 0], turn_B23[:, 1, 1] = sign_B * width_B, height_B
    turn_B23[:, 0, 2] = (2 * left_B - 1) * (1 - width_B)
    turn_B23[:, 1, 2] = (2 * top_B - 1) * (1 - height_B)
    grid = F.affine_grid(turn_B23, list(x_BCHW.shape), align_corners=False)
    return F.grid_sample(x_BCHW, grid, padding_mode="border", align_corners=False)


def _colours(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    batch = len(x_BCHW)
    bright, contrast, saturation = 1 + STRENGTH * (2 * torch.rand(3, batch, 1, 1, 1, generator=generator) - 1)
    coloured, grey = torch.rand(2, batch, 1, 1, 1, generator=generator)
    y_BCHW = x_BCHW * bright
    mean_B111 = _grey(y_BCHW).mean((1, 2, 3), keepdim=True)
    y_BCHW = mean_B111 + contrast * (y_BCHW - mean_B111)
    grey_BCHW = _grey(y_BCHW)
    y_BCHW = (grey_BCHW + saturation * (y_BCHW - grey_BCHW)).clamp(0, 1)
    y_BCHW = torch.where(coloured < COLOURED, y_BCHW, x_BCHW)
    return torch.where(grey < GREY, _grey(y_BCHW).expand_as(y_BCHW), y_BCHW)


def _grey(x_BCHW: Tensor) -> Tensor:
    """[B, 1, H, W]."""
    if x_BCHW.shape[1] != len(_LUMA):
        return x_BCHW.mean(1, keepdim=True)
    return (x_BCHW * torch.tensor(_LUMA).view(1, -1, 1, 1)).sum(1, keepdim=True)


def _permuted(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the windows with their quarters in another order; what is left over at the end stays there."""
    batch, length = len(x_BCHW), x_BCHW.shape[-1] // PIECES
    if not length:
        return x_BCHW
    order_BP = torch.rand(batch, PIECES, generator=generator).argsort(1)
    stays_B1 = torch.rand(batch, 1, generator=generator) < 0.5
    order_BP = torch.where(stays_B1, torch.arange(PIECES), order_BP)
    index_BW = (order_BP[:, :, None] * length + torch.arange(length)).flatten(1)
    rest_W = torch.arange(PIECES * length, x_BCHW.shape[-1])
    index_BW = torch.cat([index_BW, rest_W.expand(batch, -1)], 1)
    return x_BCHW.gather(3, index_BW[:, None, None, :].expand_as(x_BCHW))
