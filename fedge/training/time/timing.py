"""Real training steps, timed: processor time of one thread, in several rounds over all that is timed.

A processor is not equally fast at all times (heat, neighbours, frequency), and slow spells outlast a step. So every
cell comes again in each round, and its times are told in the speed of a fixed reference step that is timed beside it:

    seconds = median over the rounds' steps of   time * (reference's median in the session / reference beside it)
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import nn

from fedge.models import build
from fedge.training.heap import kept_heap
from fedge.training.loop import train
from fedge.training.memory_format import fast_order
from fedge.training.stats import TrainStats
from fedge.training.task import Classes, Task

ROUNDS = 3
STEPS = 2  # in each round, behind one to warm up: six in all
_MOST_STEPS = 12
_LONG_ENOUGH_S = 0.1  # together; of short steps more are timed, up to _MOST_STEPS
_REFERENCE = ("resnet8", 8)
_REFERENCE_SHAPE = (3, 32, 32)
_SHOTS = 3  # of the reference, each time


@dataclass(frozen=True)
class Step:
    """A step to be timed: `model`, which is trained by it, on noise [batch, *input_shape].

    methods: made for it, by name, as `loop.train` takes them. warm_up: steps before the first that counts.
    """

    model: nn.Module
    input_shape: tuple[int, ...]
    batch: int
    classes: int = 10
    task: Task = Classes()  # noqa: RUF009 - it has no state
    methods: dict[str, Any] = field(default_factory=dict)
    warm_up: int = 1


@dataclass
class Timed:
    """times, references: seconds of each timed step, and of the reference beside it, round by round."""

    times: list[list[float]] = field(default_factory=list)
    references: list[float] = field(default_factory=list)

    def seconds(self, typical: float | None) -> float:
        """Of a step, at the speed at which the reference takes `typical` seconds; None: as they were."""
        return median(itertools.chain(*self._told(typical)))

    def noise(self, typical: float | None) -> float:
        """How far the first and the last round's medians lie apart: a share of the time. 0 of one round."""
        rounds = self._told(typical)
        return abs(median(rounds[0]) - median(rounds[-1])) / self.seconds(typical)

    def _told(self, typical: float | None) -> list[list[float]]:
        return [
            [time_s * (typical / reference if typical else 1.0) for time_s in times]
            for times, reference in zip(self.times, self.references, strict=True)
        ]


def time_steps(
    steps: Sequence[Step],
    *,
    rounds: int = ROUNDS,
    limit_s: float = math.inf,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> list[Timed]:
    """All of them, `rounds` times, but for what is not begun after `limit_s` seconds; the first round is whole.

    `told` is told how many of how many are done.
    """
    found = [Timed() for _ in steps]
    begun_s = time.monotonic()
    with one_thread(), kept_heap():
        reference = _reference()
        before = reference()
        for place in range(rounds * len(steps)):
            if place >= len(steps) and time.monotonic() - begun_s > limit_s:
                break
            told(place, rounds * len(steps))
            step, timed = steps[place % len(steps)], found[place % len(steps)]
            timed.times.append(step_times(step))
            after = reference()
            timed.references.append((before + after) / 2)
            before = after
    return found


def typical_reference(timed: Sequence[Timed]) -> float:
    """The session's median."""
    return median(reference for each in timed for reference in each.references)


def step_times(
    step: Step,
    *,
    least: int = STEPS,
    enough_s: float = _LONG_ENOUGH_S,
    clock: Callable[[], float] = time.process_time,
) -> list[float]:
    """Processor seconds, step by step, of fedge's own loop with SGD of momentum 0.9, behind those that warm up.

    Pictures lie in the order that a device gives them. least: of steps; there are more, up to some twelve, until
    they take `enough_s` together.
    """
    generator = torch.Generator().manual_seed(0)
    order = fast_order(step.model, step.batch, step.input_shape)
    x_BCHW = torch.randn(step.batch, *step.input_shape, generator=generator).contiguous(memory_format=order)
    y_B = step.task.draw(step.batch, step.classes, generator)
    at: list[float] = []
    left = step.warm_up

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while len(at) <= least or (len(at) <= _MOST_STEPS and at[-1] - at[0] < enough_s):
            yield x_BCHW, y_B

    def record(stats: TrainStats) -> None:
        nonlocal left
        left -= 1
        if left <= 0:  # the last one to warm up ends where the first that counts begins
            at.append(clock())

    wanting = [parameter for parameter in step.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(wanting, lr=1e-3, momentum=0.9)
    train(step.model, batches(), optimizer=optimizer, task=step.task, told=record, **step.methods)
    return [after - before for before, after in itertools.pairwise(at)]


def _reference() -> Callable[[], float]:
    name, batch = _REFERENCE
    model = build(name, num_classes=10, in_channels=_REFERENCE_SHAPE[0], image_size=_REFERENCE_SHAPE[1])
    step = Step(model, _REFERENCE_SHAPE, batch)
    return lambda: median(step_times(step, least=_SHOTS, enough_s=0.0))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
