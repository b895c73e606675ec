"""The order in memory of a mini-batch's pictures in which a network trains faster on a CPU; the network stays as it is.

From plain NCHW order, oneDNN copies maps to an order of its own before a convolution and back behind it, and norms read
channel by channel. Maps in channels-last order are read as they are; it is the kernels that are copied then. So
channels-last order pays where there is more of the maps than of the kernels, and is taken from `MAPS_PER_WEIGHT` on:

    maps per weight  =  instances  *  numbers in the convolutions' input and output maps  /  weights of the convolutions

Measured on AVX-512 by `python -m benchmarks memory_format`.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from fedge.training.macs import evaluating, input_of, one_instance

MAPS_PER_WEIGHT = 2


def fast_order(model: nn.Module, batch_size: int, input_shape: Sequence[int]) -> torch.memory_format:
    """For mini-batches [batch_size, *input_shape] (C, H, W); PyTorch's own, NCHW, for a network without a Conv2d."""
    pays = maps_per_weight(model, batch_size, input_shape) >= MAPS_PER_WEIGHT
    return torch.channels_last if pays else torch.contiguous_format


def maps_per_weight(model: nn.Module, batch_size: int, input_shape: Sequence[int]) -> float:
    """Numbers in the maps that Conv2d layers read and write per weight of theirs; 0 without any.

    One instance goes through the model, which comes back as it was.
    """
    weights, maps = 0, 0

    def count(
        layer: nn.Conv2d, inputs: tuple[Tensor, ...], by_keyword: dict[str, Tensor], output: Tensor
    ) -> None:
        nonlocal weights, maps
        weights += layer.weight.numel()
        maps += input_of(inputs, by_keyword).numel() + output.numel()

    with ExitStack() as stack:
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                stack.callback(layer.register_forward_hook(count, with_kwargs=True).remove)
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.no_grad())
        model(one_instance(model, input_shape))
    return batch_size * maps / weights if weights else 0.0
