"""Peak training memory of a network, computed on fake tensors: nothing is trained, no activation allocated.

Two training steps run on `FakeTensorMode` tensors, which have shapes and no storage (two, because an
optimiser's state first exists after one). A dispatch mode adds up the storages alive; the peak is the largest

    bytes alive before an operator + bytes the operator takes while it runs

What an operator returns is seen; what a convolution takes inside is not, and it decides LeNet's peak. So it
is added from the shapes, as PyTorch's CPU build (oneDNN) does it: input, weight and output are copied to layouts
with channels in blocks of 16. With b(.) the bytes in that layout (0 for an input of up to 3 channels):

    forward          max(b(x) + b(w) + b(y), b(y) + y)
    error            max(b(dy) + b(w) + b(dx), b(dx) + dx)      where the input needs a gradient; one dx more
                                                                with a stride, but not for a depthwise layer
    weight gradient  dx + b(w) + max(b(dy) + b(x), w)
    1 x 1, stride 1  nothing
    channels last    b(w) and the results alone (error-map pruning works in that layout)

Unit: bytes of tensors as the allocator hands them out, without the C library's slack and the interpreter.
Expected error: within 2 % of the allocator's own peak (benchmarks/memory.py) on a CPU with AVX-512; on AVX2,
with blocks of 8, it may be too high. A GPU's workspaces are its own: there this is a lower bound.
"""

import copy
import functools
import itertools
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from fedge.errors import UserError
from fedge.training.error_map import ErrorMapPruner

Optimizer = Literal["sgd", "momentum", "adam"]

_OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.1),
    "momentum": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adam": functools.partial(torch.optim.Adam, lr=0.1),
}
_STEPS = 2
_BLOCK = 16  # channels; fixed rather than asked of this machine's CPU, so that every host says the same
_PLAIN_CHANNELS = 3


def peak_training_memory(
    make_model: Callable[[], nn.Module],
    *,
    batch_size: int,
    input_shape: tuple[int, int, int],
    optimizer: Optimizer = "sgd",
    error_maps: float | None = None,
) -> int:
    """Bytes at the peak of training `make_model()` on float32 batches [batch_size, *input_shape] (C, H, W).

    The model may be any, pruned or not; it is neither changed nor run. `error_maps` is the share of error-map
    channels kept (None or 1: all). A few seconds at most for the networks of fedge.models. UserError: an
    unknown optimiser, a batch below 1.
    """
    if optimizer not in _OPTIMIZERS:
        raise UserError(f"optimizer is '{optimizer}'; there are {', '.join(_OPTIMIZERS)}")
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    real = make_model()
    fake_tensors = FakeTensorMode()
    with FakeCopyMode(fake_tensors):
        model = copy.deepcopy(real).train()
    with fake_tensors, LiveBytes(itertools.chain(model.parameters(), model.buffers())) as live:
        update = _OPTIMIZERS[optimizer](model.parameters())
        x_BCHW = torch.empty(batch_size, *input_shape)
        y_B = torch.empty(batch_size, dtype=torch.long)
        with nullcontext() if error_maps is None else ErrorMapPruner(model, keep=error_maps), _quiet():
            for _ in range(_STEPS):
                F.cross_entropy(model(x_BCHW), y_B).backward()
                update.step()
                update.zero_grad(set_to_none=True)
        return live.peak


@contextmanager
def _quiet() -> Iterator[None]:
    """The error-map pruner asks where a tensor lies, which torch warns of on fake tensors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        yield


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages alive: of `tensors`, and of all that is made inside; and their peak."""

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: dict[int, weakref.finalize] = {}
        for tensor in tensors:
            self._add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.peak = max(self.peak, self.now + _inside(func, args, result))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known:
            self.now += storage.nbytes()
            self._known[key] = weakref.finalize(storage, self._remove, key, storage.nbytes())

    def _remove(self, key: int, nbytes: int) -> None:
        self.now -= nbytes
        del self._known[key]


def _inside(func: Any, args: tuple, result: Any) -> int:
    """Bytes the operator holds at its own peak, its results included; 0 where it is the results alone."""
    inside = _INSIDE.get(func)
    return inside(result, *args) if inside else 0


def _convolution(y: Tensor, x: Tensor, weight: Tensor, *options: Any) -> int:
    _, stride, _, _, transposed, *_ = options
    if transposed or _is_pointwise(weight, stride):
        return 0
    if _any_channels_last(x, weight):
        return _weight_copy(weight) + y.nbytes
    return max(_input_copy(x) + _weight_copy(weight) + _copy(y), _copy(y) + y.nbytes)


def _convolution_backward(results: Any, dy: Tensor, x: Tensor, weight: Tensor, *options: Any) -> int:
    _, stride, _, _, transposed, _, groups, (needs_error, *_) = options
    if transposed or _is_pointwise(weight, stride):
        return 0
    if _any_channels_last(dy, x, weight):
        return _weight_copy(weight) + sum(tensor.nbytes for tensor in results if tensor is not None)
    error_bytes = x.nbytes if needs_error else 0
    again = error_bytes if max(stride) > 1 and groups == 1 else 0
    error = max(_copy(dy) + _weight_copy(weight), error_bytes + again) + _copy(x) if needs_error else 0
    gradient = error_bytes + _weight_copy(weight) + max(_copy(dy) + _input_copy(x), weight.nbytes)
    return max(error, gradient)


def _max_pool_backward(dx: Tensor, dy: Tensor, x: Tensor, *options: Any) -> int:
    """Where error and input differ in layout, the result and the indices are copied to the error's."""
    indices = options[-1]
    return dx.nbytes * 2 + indices.nbytes if _any_channels_last(dy) != _any_channels_last(x) else 0


_INSIDE: dict[Any, Callable[..., int]] = {
    torch.ops.aten.convolution.default: _convolution,
    torch.ops.aten.convolution_backward.default: _convolution_backward,
    torch.ops.aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
}


def _is_pointwise(weight_OIHW: Tensor, stride: list[int]) -> bool:
    """A matrix product, done in the plain layout."""
    return tuple(weight_OIHW.shape[2:]) == (1, 1) and max(stride) == 1


def _any_channels_last(*tensors_BCHW: Tensor) -> bool:
    return any(
        tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
        for tensor in tensors_BCHW
    )


def _blocked(channels: int) -> int:
    return -(-channels // _BLOCK) * _BLOCK


def _copy(x_BCHW: Tensor) -> int:
    """Bytes of a tensor in blocks of channels."""
    return x_BCHW.nbytes // x_BCHW.shape[1] * _blocked(x_BCHW.shape[1])


def _input_copy(x_BCHW: Tensor) -> int:
    return _copy(x_BCHW) if x_BCHW.shape[1] > _PLAIN_CHANNELS else 0


def _weight_copy(weight_OIHW: Tensor) -> int:
    out_channels, in_channels, *_ = weight_OIHW.shape
    blocked_in = _blocked(in_channels) if in_channels > _PLAIN_CHANNELS else in_channels
    return weight_OIHW.nbytes // (out_channels * in_channels) * _blocked(out_channels) * blocked_in
