"""Batch norm and a mini-batch of one instance."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from fedge.training.torch_private import BatchNorm

Inputs = tuple[Tensor, ...]


@contextmanager
def norms_for_one(model: nn.Module) -> Iterator[None]:
    """One value per channel has no spread, which PyTorch refuses: such a norm uses its running statistics. One that has
    none gives its shift, which is what its formula says of a single value."""
    with ExitStack() as stack:
        for norm in model.modules():
            if not isinstance(norm, BatchNorm):
                continue
            stack.callback(norm.train, norm.training)
            if norm.running_mean is not None:
                stack.callback(norm.register_forward_pre_hook(_rest).remove)
            else:
                stack.callback(norm.register_forward_pre_hook(_double).remove)
                stack.callback(norm.register_forward_hook(_halve).remove)
        yield


def _rest(norm: nn.Module, inputs: Inputs) -> None:
    if _is_one_value(inputs[0]):
        norm.eval()


def _double(norm: nn.Module, inputs: Inputs) -> Inputs | None:
    return (torch.cat([inputs[0], inputs[0]]),) if _is_one_value(inputs[0]) else None


def _halve(norm: nn.Module, inputs: Inputs, output: Tensor) -> Tensor | None:
    return output[:1] if output.numel() == 2 * output.shape[1] and len(output) == 2 else None


def _is_one_value(x: Tensor) -> bool:
    """Per channel, x: [1, C, ...]."""
    return x.numel() == x.shape[1]
