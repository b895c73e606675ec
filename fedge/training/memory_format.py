"""The order in memory of a mini-batch's pictures in which a network trains faster on a CPU; the network stays as it is.

From plain NCHW order, oneDNN copies maps to an order of its own before a convolution and back behind it, and norms read
channel by channel. Maps in channels-last order are read as they are; it is the kernels that are copied then. So
channels-last order pays where there is more of the maps than of the kernels, and is taken from `MAPS_PER_WEIGHT` on:

    maps per weight  =  instances  *  numbers in the convolutions' input and output maps  /  weights of the convolutions

Measured on AVX-512 by `python -m benchmarks memory_format`.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from fedge.training.counting.dry_run import instances, on_fake_or_real, stand_in
from fedge.training.counting.memo import remembered
from fedge.training.macs import INSTANCES, has_plain_layers, input_of, is_small
from fedge.training.outputs import one_tensor
from fedge.training.torch_private import FakeTensorMode

MAPS_PER_WEIGHT = 2


def fast_order(model: nn.Module, batch_size: int, input_shape: Sequence[int]) -> torch.memory_format:
    """For mini-batches [batch_size, *input_shape] (C, H, W); PyTorch's own, NCHW, for a network without a Conv2d."""
    pays = maps_per_weight(model, batch_size, input_shape) >= MAPS_PER_WEIGHT
    return torch.channels_last if pays else torch.contiguous_format


def maps_per_weight(model: nn.Module, batch_size: int, input_shape: Sequence[int]) -> float:
    """Numbers in the maps that Conv2d layers read and write per weight of theirs; 0 without any."""
    return batch_size * _maps_of_one(model, input_shape)


@remembered
def _maps_of_one(model: nn.Module, input_shape: Sequence[int]) -> float:
    """Of a mini-batch of one.

    Two instances go through the model in training mode, which comes back as it was.
    """
    weights, maps = 0, 0

    def count(
        layer: nn.Conv2d, inputs: tuple[Tensor, ...], by_keyword: dict[str, Tensor], output: Tensor
    ) -> None:
        nonlocal weights, maps
        weights += layer.weight.numel()
        maps += input_of(inputs, by_keyword).numel() + output.numel()

    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    if not convolutions:
        return 0.0

    def run(fake: FakeTensorMode | None) -> None:
        nonlocal weights, maps
        weights, maps = 0, 0
        with stand_in(model, fake), fake or nullcontext(), torch.no_grad():
            model.train()
            for layer in convolutions:
                layer.register_forward_hook(count, with_kwargs=True)
            one_tensor(model(instances(model, input_shape, INSTANCES)))

    on_fake_or_real(run, fake=not (has_plain_layers(model) or is_small(model, input_shape)))
    return maps / INSTANCES / weights if weights else 0.0
