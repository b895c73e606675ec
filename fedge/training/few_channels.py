"""Layers of few channels, as pruning leaves them, in plain training: by our own passes, where PyTorch's are slow.

PyTorch's products take as long for 3 channels as for the 16 that fill a vector of the processor, and its batch norm
takes longer; direct_convolution.c and channelwise.c do not. Every error map is kept: gradients are PyTorch's but for
rounding, and count the same. `train` attaches this where there is no other method that does. PyTorch's own, bit for
bit, are other layers, maps in NCHW order, other devices than the CPU, and everything where there is no C compiler.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedge.training import direct_convolution
from fedge.training.block_passes import BlockPasses, padded
from fedge.training.direct_convolution import VECTOR
from fedge.training.macs import BackwardCost
from fedge.training.pruned_backward import PrunedLayer

FEW = VECTOR // 2  # channels, up to which it pays: benchmarks/prune_wallclock.py
FEWEST_PIXELS = 1 << 11  # of a batch, from which on it pays to call a block from Python


class FewChannels(BlockPasses):
    """Context manager: inside it, `model`'s 3 x 3 convolutions from or to 8 channels or fewer, and the norms behind
    them, train faster."""

    def _forward_of(self, name: str, layer: nn.Module) -> Callable[[Tensor], Tensor] | None:
        """Only what has to do with few channels is replaced, and nobody else's forward nor the Sequential around it."""
        parts = layer, *layer.children()
        if any("forward" in part.__dict__ for part in parts):
            return None
        concerned = isinstance(layer, nn.BatchNorm2d) or any(map(_is_narrow, parts))
        return super()._forward_of(name, layer) if concerned else None

    def _passes(self, name: str, layer: nn.Conv2d, x_BIHW: Tensor) -> tuple[Tensor, PrunedLayer] | None:
        to_few = layer.out_channels <= FEW
        from_few = layer.in_channels <= FEW and x_BIHW.requires_grad  # pictures get no error
        if not (to_few or from_few) or x_BIHW.dim() != 4 or not torch.is_grad_enabled():
            return None
        if x_BIHW.numel() < FEWEST_PIXELS * layer.in_channels:
            return None
        x_BIHW, geometry = padded(layer, x_BIHW)
        fits = direct_convolution.pays(x_BIHW, layer.weight, geometry)
        if not fits or torch.is_autocast_enabled(x_BIHW.device.type):
            return None
        return x_BIHW, PrunedLayer(geometry, None, _uncounted)


def _is_narrow(layer: nn.Module) -> bool:
    few = isinstance(layer, nn.Conv2d) and min(layer.in_channels, layer.out_channels) <= FEW
    return few and layer.kernel_size == direct_convolution.KERNEL


def _uncounted(cost: BackwardCost) -> None:
    """`train` counts a dense step by its layers' shapes."""
