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

FEW = VECTOR // 2  # up to which it pays: benchmarks/prune_wallclock.py


class FewChannels(BlockPasses):
    """Context manager: inside it, `model`'s 3 x 3 convolutions from or to 8 channels or fewer, and the norms behind
    them, train faster. A batch of 8 of ResNet-20 gains little, as each block is called from Python."""

    def _forward_of(self, name: str, layer: nn.Module) -> Callable[[Tensor], Tensor] | None:
        """Somebody else's forward is left, and so is the Sequential around it."""
        replaced = any("forward" in part.__dict__ for part in (layer, *layer.children()))
        return None if replaced else super()._forward_of(name, layer)

    def _passes(self, name: str, layer: nn.Conv2d, x_BIHW: Tensor) -> tuple[Tensor, PrunedLayer] | None:
        to_few = layer.out_channels <= FEW
        from_few = layer.in_channels <= FEW and x_BIHW.requires_grad  # pictures get no error
        if not (to_few or from_few) or x_BIHW.dim() != 4 or not torch.is_grad_enabled():
            return None
        x_BIHW, geometry = padded(layer, x_BIHW)
        fits = direct_convolution.pays(x_BIHW, layer.weight, geometry)
        if not fits or torch.is_autocast_enabled(x_BIHW.device.type):
            return None
        return x_BIHW, PrunedLayer(geometry, None, _uncounted)


def _uncounted(cost: BackwardCost) -> None:
    """`train` counts a dense step by its layers' shapes."""
