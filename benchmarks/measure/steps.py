"""The one timer of training steps, and how steps that are compared take turns."""

import time
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")
Batch = tuple[Tensor, Tensor]  # x [B, C, H, W], y [B]
FORMATS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}


class Times(NamedTuple):
    """Of one step: seconds by the clock, and processor seconds of all threads, which a busy machine blurs less."""

    wall_s: float
    cpu_s: float


class TrainingStep:
    """Calling it trains the network on the next of `batches`, one plain SGD step, and returns what that took.

    `x` is kept in `memory_format`; the model is left in the format that it has. `update=False` is forward and backward
    alone: gradients pile up and weights stay.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        memory_format: torch.memory_format = torch.contiguous_format,
        *,
        momentum: float = 0.9,
        update: bool = True,
    ) -> None:
        self.model = model.train()
        self._batches = cycle(
            [(x_BCHW.contiguous(memory_format=memory_format), y_B) for x_BCHW, y_B in batches]
        )
        self._optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=momentum) if update else None

    def __call__(self) -> Times:
        return timed(self.run)

    def run(self) -> None:
        """The step itself."""
        train_step(self.model, *next(self._batches), self._optimizer)


def train_step(
    model: nn.Module, x_BCHW: Tensor, y_B: Tensor, optimizer: torch.optim.Optimizer | None
) -> None:
    """Plain PyTorch, as in a user's own loop."""
    if optimizer:
        optimizer.zero_grad()
    F.cross_entropy(model(x_BCHW), y_B).backward()
    if optimizer:
        optimizer.step()


def timed(work: Callable[[], object]) -> Times:
    """Of calling it once."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return Times(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def interleaved(steps: Sequence[Callable[[], T]], turns: int, warm_up: int = 2) -> list[list[T]]:
    """[turns][steps]: each step once per turn, so that other work on the machine hits all; the first are dropped."""
    return [[step() for step in steps] for _ in range(turns + warm_up)][warm_up:]


def random_batches(batch_size: int, shape: Sequence[int], classes: int = 10, count: int = 1) -> list[Batch]:
    """Noise: neither time nor memory of a dense step depends on what it sees."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(batch_size, *shape, generator=generator),
            torch.randint(0, classes, (batch_size,), generator=generator),
        )
        for _ in range(count)
    ]
