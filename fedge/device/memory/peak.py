"""Peak training memory of a network, computed on fake tensors: nothing is trained, no activation allocated.

A training step runs on tensors that have shapes and no storage, after the optimiser has made its state (on real ones
for an LSTM, and for a network that looks at its own numbers). A dispatch mode adds up the
storages alive; the peak is the largest

    bytes alive before an operator + bytes the operator takes while it runs

What an operator returns is seen; what it takes inside, and gives back, is added from the shapes (workspace.py).

Unit: bytes of tensors as the allocator hands them out, without the C library's slack and the interpreter.
Expected error: within 1 % of the allocator's own peak (`python -m benchmarks memory`) on a CPU with AVX-512; on AVX2,
with blocks of 8, it may be too high. A GPU's workspaces are its own: there this is a lower bound, as it is
for an LSTM, whose oneDNN backward pass takes a fifth to a quarter more than is seen.
"""

import contextlib
import copy
import functools
import itertools
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedge.device.memory.workspace import inside_bytes
from fedge.errors import UserError
from fedge.training.counting.dry_run import explained, on_fake_or_real, stand_in
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.memory_format import fast_order
from fedge.training.norms import norms_for_one
from fedge.training.task import Classes, Task
from fedge.training.torch_device import CPU, device_of
from fedge.training.torch_private import (
    FakeTensorMode,
    TorchDispatchMode,
    in_backward,
    storage_key,
    tree_iter,
)
from fedge.training.update.what import training_mode

Optimizer = Literal["sgd", "momentum", "adam"]

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.1),
    "momentum": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adam": functools.partial(torch.optim.Adam, lr=0.1),
}


def peak_training_memory(
    make_model: Callable[[], nn.Module],
    *,
    batch_size: int,
    input_shape: tuple[int, ...],
    optimizer: Optimizer = "sgd",
    error_maps: float | Mapping[str, Any] | None = None,
    task: Task = Classes(),  # noqa: B008 - it has no state
) -> int:
    """Bytes at the peak of training `make_model()` on batches [batch_size, *input_shape] of its own floats: C, H, W of
    samples, or F of features.

    The model may be any, pruned or not, or frozen in parts; it is neither changed nor run. `error_maps` is the share of
    error-map channels kept (None or 1: all), or the options of an ErrorMapPruner. `task`: whose loss is part of the
    step. A few seconds at most for the networks of fedge.models. UserError: an unknown optimiser, a batch below 1, a
    network that cannot train on it or whose outputs are not the task's.
    """
    if optimizer not in OPTIMIZERS:
        raise UserError(f"optimizer is '{optimizer}'; there are {', '.join(OPTIMIZERS)}")
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    model = _on_cpu(make_model())
    order = fast_order(model, batch_size, input_shape)

    def peak(fake: FakeTensorMode | None) -> int:
        with stand_in(model, fake, aside=False), fake or contextlib.nullcontext():
            training_mode(model)
            live = LiveBytes(itertools.chain(model.parameters(), model.buffers()))
            with live:
                update = OPTIMIZERS[optimizer](model.parameters())
                _make_state(update, model)
                steps = (
                    2 if isinstance(error_maps, Mapping) else 1
                )  # the unbiased kinds keep something for the next
                train_steps(steps, model, update, batch_size, input_shape, error_maps, order, task)
            return live.peak

    # what an LSTM keeps for its backward pass has no shape on a fake tensor
    fake = not any(isinstance(layer, nn.LSTM) for layer in model.modules())
    with explained([batch_size, *input_shape]):
        return on_fake_or_real(peak, fake=fake)


def _on_cpu(model: nn.Module) -> nn.Module:
    """Itself, or a copy where it computes elsewhere: what a simulated device needs does not depend on the host."""
    return model if device_of(model) in (None, CPU) else copy.deepcopy(model).to(CPU)


def _make_state(update: torch.optim.Optimizer, model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    update.step()
    update.zero_grad(set_to_none=True)


def train_steps(
    steps: int,
    model: nn.Module,
    update: torch.optim.Optimizer,
    batch_size: int,
    input_shape: tuple[int, ...],
    error_maps: float | Mapping[str, Any] | None,
    order: torch.memory_format,
    task: Task = Classes(),  # noqa: B008 - it has no state
) -> None:
    """What is estimated: plain training steps, on a batch of zeros in that order, as values have no size."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    x_BCHW = torch.empty(batch_size, *input_shape, dtype=dtype, memory_format=order).zero_()
    y_B = torch.zeros(batch_size, dtype=torch.long)  # there before the network runs
    with contextlib.ExitStack() as stack:
        if error_maps is not None:
            options = error_maps if isinstance(error_maps, Mapping) else {"keep": error_maps}
            stack.enter_context(ErrorMapPruner(model, **options))
        if batch_size == 1:
            stack.enter_context(norms_for_one(model))
        for _ in range(steps):
            _loss(model(x_BCHW), y_B, task).backward()
            update.step()
            update.zero_grad(set_to_none=True)


def _loss(output: object, y_B: Tensor, task: Task) -> Tensor:
    out_BK = task.outputs(output, len(y_B))
    class_per_sample = task.name == "classes" and out_BK.dim() == 2
    return task.mean_loss(out_BK, y_B if class_per_sample else task.blank(out_BK))


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages alive: of `tensors`, and of all that is made inside; and their peak."""

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no annotations
        self.now = 0
        self.peak = 0
        self._known: dict[int, weakref.finalize[[int, int], torch.UntypedStorage]] = {}
        for tensor in tensors:
            self._add(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.peak = max(self.peak, self.now + inside_bytes(func, args, result))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        if not _sums_gradients(func):
            self.peak = max(self.peak, self.now)
        return result

    def _add(self, tensor: Tensor) -> None:
        key, storage = storage_key(tensor), tensor.untyped_storage()
        if key not in self._known:
            self.now += storage.nbytes()
            self._known[key] = weakref.finalize(storage, self._remove, key, storage.nbytes())

    def _remove(self, key: int, nbytes: int) -> None:
        self.now -= nbytes
        del self._known[key]


def _sums_gradients(func: Any) -> bool:
    """Where two gradients of one tensor meet, autograd adds real ones in place, and fake ones not."""
    return func is torch.ops.aten.add.Tensor and in_backward()
