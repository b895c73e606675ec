"""Convolutions, each with the norm behind it, run by backward.py instead of PyTorch.

Attached by replacing the `forward` of the model's Conv2d, BatchNorm2d and Sequential objects (not their classes), and
detached by removing it again (blocks.py). Hooks and `retain_grad` on a tensor between a convolution and its norm are
not called while attached; those of layers are. Shapes: B instances, C channels out, I channels in, H x W pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from fedge.training.counting.dry_run import in_dry_run
from fedge.training.error_map.backward import PrunedBlock, PrunedConv, PrunedLayer, apply, norm_after
from fedge.training.error_map.blocks import blocks_of, computes_as, replace_forward
from fedge.training.error_map.geometry import Geometry, geometry
from fedge.training.macs import Counted
from fedge.training.torch_private import padding_pairs


class BlockPasses(ABC):
    """Context manager: inside it, `model` runs what `_passes` says of each convolution, and the rest as it is."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._attached: list[Callable[[], None]] = []
        self._layers: dict[str, nn.Module] = {}

    @abstractmethod
    def _passes(self, name: str, layer: nn.Conv2d, x_BIHW: Tensor) -> tuple[Tensor, PrunedLayer] | None:
        """The input as the products read it, and what the backward pass needs; None where it is PyTorch's."""

    def _block_passes(self, name: str, layer: nn.Conv2d, x_BIHW: Tensor) -> tuple[Tensor, PrunedLayer] | None:
        """The same for a convolution together with what is behind it."""
        return self._passes(name, layer, x_BIHW)

    def _dense(self, layer: Counted, dense: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """PyTorch's own layer."""
        return dense(x)

    @property
    def entered(self) -> bool:
        """Whether the model's layers are run so now."""
        return bool(self._attached)

    @property
    def is_current(self) -> bool:
        """Whether the model still has the layers that are run so; a cut may have put others in their place."""
        return self._layers == {
            name: layer for name, layer in self.model.named_modules() if name in self._layers
        }

    def __enter__(self) -> Self:
        self._layers = dict(self.model.named_modules())
        forwards = [(layer, self._forward_of(name, layer)) for name, layer in self.model.named_modules()]
        for layer, forward in forwards:
            if forward is not None:
                self._attached.append(replace_forward(layer, forward))
        return self

    def __exit__(self, *exception: object) -> None:
        while self._attached:
            self._attached.pop()()

    def _forward_of(self, name: str, layer: nn.Module) -> Callable[[Tensor], Tensor] | None:
        """What takes the place of the layer's forward; None leaves it."""
        if computes_as(layer, nn.Conv2d):
            return partial(self._conv, name, layer, layer.forward)
        if computes_as(layer, nn.BatchNorm2d):
            return partial(_norm, layer, layer.forward)
        if computes_as(layer, nn.Sequential) and "forward" not in layer.__dict__:
            return partial(self._sequence, name, layer)
        return None

    def _conv(self, name: str, layer: nn.Conv2d, dense: Callable[[Tensor], Tensor], x_BIHW: Tensor) -> Tensor:
        passes = None if in_dry_run() else self._passes(name, layer, x_BIHW)
        if passes is None:
            return self._dense(layer, dense, x_BIHW)
        x_BIHW, how = passes
        return apply(PrunedConv, x_BIHW, layer.weight, layer.bias, how)

    def _sequence(self, name: str, layers: nn.Sequential, x: Tensor) -> Tensor:
        """The layers in turn, a block as one."""
        for child, block in blocks_of(layers):
            out = self._block(f"{name}.{child}" if name else child, block, x) if len(block) == 2 else None
            if out is not None:
                x = out
                continue
            for layer in block:
                x = layer(x)
        return x

    def _block(self, name: str, block: tuple[nn.Conv2d, nn.BatchNorm2d], x_BIHW: Tensor) -> Tensor | None:
        """Its output; None where it must be run layer by layer."""
        conv, norm = block
        passes = None if in_dry_run() else self._block_passes(name, conv, x_BIHW)
        if passes is None:
            return None
        x_BIHW, how = passes
        return apply(PrunedBlock, x_BIHW, conv.weight, conv.bias, norm.weight, norm.bias, None, how, norm)


def _norm(layer: nn.BatchNorm2d, dense: Callable[[Tensor], Tensor], y_BCHW: Tensor) -> Tensor:
    joined = norm_after(y_BCHW, layer)
    return dense(y_BCHW) if joined is None else joined


def padded(layer: nn.Conv2d, x_BIHW: Tensor) -> tuple[Tensor, Geometry]:
    """What the products read, and how; padding other than plain zeros is done on x beforehand."""
    padding = (0, 0) if layer.padding == "valid" else layer.padding
    if layer.padding_mode != "zeros" or padding == "same":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x_BIHW, padding = F.pad(x_BIHW, padding_pairs(layer), mode=mode), (0, 0)
    how = layer.kernel_size, layer.stride, padding, layer.dilation, layer.groups
    return x_BIHW, geometry(*how, layer.out_channels)
