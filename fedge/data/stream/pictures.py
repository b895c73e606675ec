"""What a device's camera makes of a row: frames of one scene differ, and drift spoils them.

    next_frames   shifted by -1, 0 or 1 pixel each way, with noise of 0.1 standard deviations
    noise         x + sigma * z, z normal                         sigma  0.04  0.06  0.08  0.09  0.10
    blur          Gaussian                                        pixels 0.4   0.6   0.7   0.8   1.0
    contrast      mean + c * (x - mean), per sample and channel   c      0.75  0.5   0.4   0.3   0.15
    turned        turned about the middle, what is missing black  9 degrees a step

The constants are CIFAR-10-C's for severities 1 to 5 (Hendrycks and Dietterich, arXiv 1903.12261). Pictures are on the
scale 0..1; of other signals 1 is four standard deviations. Shapes: F frames of [C, H, W].
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fedge.data.stream import chance

Pictures = NDArray[np.uint8] | NDArray[np.float32]
Numbers = NDArray[np.int64]

FRAME_NOISE = 0.1
NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)
BLUR_PIXELS = (0.4, 0.6, 0.7, 0.8, 1.0)
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
DEGREES_PER_STEP = 9
RANGE_STDS = 4.0


def next_frames(x_FCHW: Tensor, std_C: Tensor, key: int, number_F: Numbers) -> Tensor:
    """Each frame shifted and noised by its own number; `std_C` are the data's deviations."""
    shift_F = (chance.draws(key, number_F) % np.uint64(9)).astype(np.int64)
    shifted_FCHW = torch.empty_like(x_FCHW)
    for shift in range(9):
        now = torch.from_numpy(shift_F == shift)
        shifted_FCHW[now] = x_FCHW[now].roll((shift // 3 - 1, shift % 3 - 1), (2, 3))
    return shifted_FCHW + FRAME_NOISE * std_C[:, None, None] * _normal(x_FCHW, key, number_F)


def noise(x_FCHW: Tensor, scale_C: Tensor, severity: int, key: int, number_F: Numbers) -> Tensor:
    """Noise by the frame's own number."""
    return x_FCHW + NOISE[severity - 1] * scale_C[:, None, None] * _normal(x_FCHW, key, number_F)


def blur(x_FCHW: Tensor, severity: int) -> Tensor:
    """Down and across; a side of one pixel is left alone."""
    radius = 3
    offset_W = torch.arange(-radius, radius + 1)
    weight_W = torch.exp(-0.5 * (offset_W / BLUR_PIXELS[severity - 1]) ** 2)
    weight_W /= weight_W.sum()
    channels = x_FCHW.shape[1]
    for shape, padding in (((-1, 1), (0, 0, radius, radius)), ((1, -1), (radius, radius, 0, 0))):
        side = 2 if shape[0] == -1 else 3
        if x_FCHW.shape[side] == 1:
            continue
        kernel = weight_W.view(1, 1, *shape).expand(channels, 1, -1, -1)
        x_FCHW = F.conv2d(F.pad(x_FCHW, padding, mode="replicate"), kernel, groups=channels)
    return x_FCHW


def contrast(x_FCHW: Tensor, severity: int) -> Tensor:
    """Less of it."""
    mean_FC11 = x_FCHW.mean((2, 3), keepdim=True)
    return mean_FC11 + CONTRAST[severity - 1] * (x_FCHW - mean_FC11)


def turned(x_FCHW: Tensor, severity: int) -> Tensor:
    """By `severity` steps of 9 degrees, bilinear."""
    angle = math.radians(DEGREES_PER_STEP * severity)
    turn_23 = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])
    grid = F.affine_grid(turn_23.expand(len(x_FCHW), 2, 3), list(x_FCHW.shape), align_corners=False)
    return F.grid_sample(x_FCHW, grid, align_corners=False)


def scaled(stored_FCHW: Pictures) -> Tensor:
    """Float32, pictures 0..1."""
    x_FCHW = torch.from_numpy(stored_FCHW)
    return x_FCHW.float() / 255 if x_FCHW.dtype == torch.uint8 else x_FCHW


def stored(x_FCHW: Tensor, dtype: np.dtype) -> Pictures:
    """As rows are stored: bytes are rounded and held in their range."""
    if dtype == np.uint8:
        x_FCHW = (x_FCHW * 255).round().clamp(0, 255).to(torch.uint8)
    made: Pictures = x_FCHW.contiguous().numpy()
    return made


def _normal(x_FCHW: Tensor, key: int, number_F: Numbers) -> Tensor:
    """Of the frames' shape."""
    z_FN = chance.normal(key, number_F, x_FCHW[0].numel() if len(x_FCHW) else 0)
    return torch.from_numpy(z_FN).view(x_FCHW.shape)
