"""How often an instance has just been seen: frames of a camera come in runs of near-duplicates.

A filter that predicts an image's loss predicts the same for every frame of a run, and would fill a mini-batch with one
scene. So the instances before it are compared by thumbnails t (the image averaged to a few pixels, its mean taken off):

    d_ij    = ||t_i - t_j||^2 / (||t_i||^2 + ||t_j||^2)          0: equal; about 1: unrelated
    seen_i  = number of j among the `reach` instances before i with d_ij < closeness

One product of thumbnails per pair; shuffled MNIST gives 0 to nearly all, shifted noisy frames 1, 2, 3, ...
Shapes: B instances on offer, R remembered, T pixels of a thumbnail.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

THUMBNAIL_SIDE = 7


class NearDuplicates:
    """Remembers the last `reach` thumbnails; `tensors` is its state. closeness: in 0 .. 1, 0 finds none."""

    def __init__(self, channels: int, *, reach: int = 15, closeness: float = 0.15) -> None:
        self.closeness = closeness
        self.tensors = {"thumbnails": torch.zeros(reach, channels * THUMBNAIL_SIDE**2)}

    @property
    def macs_per_instance(self) -> int:
        """Of comparing it with those before it, as if it were compared with those alone."""
        return self.tensors["thumbnails"].numel()

    def count(self, x_BCHW: Tensor) -> Tensor:
        """`seen` [B], as floats; remembers the instances."""
        reach = len(self.tensors["thumbnails"])
        thumbnail_BT = F.adaptive_avg_pool2d(x_BCHW, THUMBNAIL_SIDE).flatten(1)
        thumbnail_BT = thumbnail_BT - thumbnail_BT.mean(1, keepdim=True)
        all_RT = torch.cat([self.tensors["thumbnails"], thumbnail_BT])
        self.tensors["thumbnails"] = all_RT[-reach:].clone()
        # windows of reach + 1: the last is the instance, the others those before it
        window_BTW = all_RT.unfold(0, reach + 1, 1)
        size_BW = window_BTW.square().sum(1)
        product_BW = torch.einsum("bt,btw->bw", thumbnail_BT, window_BTW)
        size_pair_BW = size_BW + size_BW[:, -1:]
        close_BW = size_pair_BW - 2 * product_BW < self.closeness * size_pair_BW
        return close_BW[:, :-1].sum(1).float()
