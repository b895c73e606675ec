"""A device's round of contrastive learning: what came goes once through one small buffer, and no label is read.

Frames are those since the device's last round, held-out ones left out, in the order in which they came, whether they
ever get a label or not. They come in segments as long as the buffer, the last one shorter. What of them there is no
time for is never seen. The buffer, what is known of it and the projection go on from round to round in the device's
state; the network has no part of them. Shapes: M in the buffer, K candidates, L looked at.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from fedge.data.shard import Batch
from fedge.data.stream import pictures
from fedge.data.stream.stream import Frames
from fedge.device.budget.pace import Pace
from fedge.device.methods import settings_decay
from fedge.device.round import Round
from fedge.device.storage.intake import Intake
from fedge.errors import UserError
from fedge.scenario.methods.contrast import Contrast
from fedge.seeding import derive_seed
from fedge.training.contrast.buffer import Buffer
from fedge.training.contrast.nt_xent import NtXent, partners
from fedge.training.contrast.projection import WIDTH, in_place_of_head, linear_head, made_projection
from fedge.training.contrast.scores import contrast_scores, embedded, mirrored
from fedge.training.contrast.views import jittered, views_for
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.loop import FLOAT_BIT_OPERATIONS, train
from fedge.training.macs import count_forward
from fedge.training.memory_format import fast_order
from fedge.training.stats import TrainStats
from fedge.training.update.decay import Decay

STATE = "contrast."  # before the names of this part of the stream's state


class Learner:
    """Of one round. `task` is what the network is asked meanwhile."""

    def __init__(self, round: Round, intake: Intake, choice: Contrast) -> None:
        self._round, self._intake, self.choice = round, intake, choice
        self.task = NtXent(choice.temperature)
        self._name, head = linear_head(round.network.model, round.prepared.input_shape)
        seed = derive_seed(round.simulated.seed, round.client, "projection")
        self.projection = made_projection(head.in_features, seed).to(round.torch_device)
        self.buffer = Buffer(choice.rule, choice.buffer, lazy=choice.lazy)
        self._frames = intake.stream.frames(*_nothing())
        self._views = views_for(round.prepared.input_shape)
        self._generator = torch.Generator().manual_seed(round.seed("contrast"))
        self._looking = TrainStats()  # not told of yet
        self._load(under(STATE, round.before.stream))

    def learn(
        self,
        optimizer: torch.optim.Optimizer,
        error_maps: ErrorMapPruner | None,
        pace: Pace | None,
        told: Callable[[TrainStats], None],
    ) -> TrainStats:
        """Train the network, which must be projecting, on what there is time for; what it cost, scoring included."""
        local, extra = self._round.local, TrainStats()

        def tell(step: TrainStats) -> None:
            nonlocal extra
            beside = self.beside(step)
            extra += beside
            told(step + beside)

        batches: Iterator[Batch] = self.batches()
        if pace is not None:
            batches = pace.within(batches)
        curve = settings_decay(self._round.training)
        if curve is not None:
            span = local.span(0, 1) | {"count": max(1, self.steps)}
            batches = Decay(optimizer, curve).over(batches, **span)
        model = self._round.network.model
        stats = train(model, batches, optimizer=optimizer, error_maps=error_maps, task=self.task, told=tell)
        return stats + extra + self.looking()

    def projecting(self) -> AbstractContextManager[None]:
        """Inside, the network ends in the projection."""
        return in_place_of_head(self._round.network.model, self._name, self.projection)

    @property
    def steps(self) -> int:
        """Mini-batches of the round, as long as there is time for them."""
        count = len(self._intake.came())
        short = int(
            len(self._frames) + min(count, self.choice.buffer) < 2
        )  # one sample alone: nothing to tell apart
        return max(0, -(-count // self.choice.buffer) - short) * self.choice.updates_per_segment

    def batches(self) -> Iterator[Batch]:
        """Two views of each sample in the buffer, normalised, and where each one's other is."""
        order = fast_order(
            self._round.network.model, 2 * self.choice.buffer, self._round.prepared.input_shape
        )
        forward = count_forward(self._round.network.model, self._round.prepared.input_shape).forward
        for segment in self._intake.came().blocks(self.choice.buffer):
            self._keep(segment, order, forward)
            for _ in range(self.choice.updates_per_segment if len(self._frames) > 1 else 0):
                self._intake.learnt_from(self._frames.row)
                x_MCHW = self._shown(self._frames)
                x_VCHW = torch.cat([self._views(x_MCHW, self._generator) for _ in range(2)])
                yield self._normalised(x_VCHW, order), partners(len(x_VCHW))

    def looking(self) -> TrainStats:
        """What scoring and the loss's own products have cost since this was asked."""
        cost, self._looking = self._looking, TrainStats()
        return cost

    def beside(self, step: TrainStats) -> TrainStats:
        """What one step cost beside the network's own products."""
        views = step.samples_kept
        macs = self.task.macs(views, WIDTH)
        own = TrainStats(
            macs_forward=macs // 3,
            macs_error_propagation=macs - macs // 3,
            bit_operations=FLOAT_BIT_OPERATIONS * macs,
        )
        return own + self.looking()

    def state(self) -> dict[str, Tensor]:
        """For the device's state, at the round's end."""
        held = {name: torch.from_numpy(getattr(self._frames, name)) for name in ("number", "row", "time_h")}
        held |= {f"buffer.{name}": tensor for name, tensor in self.buffer.tensors().items()}
        held |= {f"projection.{name}": tensor.cpu() for name, tensor in self.projection.state_dict().items()}
        return {f"{STATE}{name}": tensor for name, tensor in held.items()}

    def _load(self, learnt: dict[str, Tensor]) -> None:
        """Nothing of another kind of buffer, which a policy has changed since."""
        if not learnt or len(learnt["number"]) > self.choice.buffer:
            return
        known, dimensions = learnt["buffer.known"], {"contrast": 1, "minred": 2}.get(self.choice.rule)
        if dimensions and (len(known) != len(learnt["number"]) or known.dim() != dimensions):
            return
        self._frames = self._intake.stream.frames(
            *(learnt[name].numpy() for name in ("number", "row", "time_h"))
        )
        self.buffer.load(under("buffer.", learnt))
        self.projection.load_state_dict(under("projection.", learnt))

    def _keep(self, segment: Frames, order: torch.memory_format, forward: int) -> None:
        number, row, time_h = (
            np.concatenate([getattr(self._frames, name), getattr(segment, name)])
            for name in ("number", "row", "time_h")
        )
        candidates = self._intake.stream.frames(number, row, time_h)
        weak = self.choice.rule == "contrast"

        def look(due_L: Tensor) -> Tensor:
            macs = len(due_L) * forward * (2 if weak else 1)
            self._looking += TrainStats(
                samples_looked_at=len(due_L), macs_filter=macs, bit_operations=FLOAT_BIT_OPERATIONS * macs
            )
            found = [self._found(candidates[some.numpy()], order) for some in due_L.split(self.choice.buffer)]
            return torch.cat(found)

        kept_M = self.buffer.offer(len(segment), look, self._generator)
        self._frames = candidates[kept_M.numpy()]

    def _found(self, frames: Frames, order: torch.memory_format) -> Tensor:
        """Scores or embeddings, at most as many at a time as the buffer holds: fewer than a step's views."""
        model = self._round.network.model
        x_LCHW = self._normalised(self._shown(frames), order).to(self._round.torch_device)
        if self.choice.rule == "minred":
            return embedded(model, x_LCHW).cpu()
        return contrast_scores(model, x_LCHW, self._weak).cpu()

    def _weak(self, x_LCHW: Tensor) -> Tensor:
        if self._round.prepared.input_shape[1] > 1:
            return mirrored(x_LCHW)
        return jittered(x_LCHW.cpu(), self._generator).to(x_LCHW.device)

    def _shown(self, frames: Frames) -> Tensor:
        """Pictures 0..1, windows as they were measured."""
        return pictures.scaled(self._intake.stream.pictures(frames))

    def _normalised(self, x_BCHW: Tensor, order: torch.memory_format) -> Tensor:
        return self._round.own_shard.normalised(x_BCHW, order)


def learner_of(round: Round, choice: Contrast) -> Learner:
    """Of a round with a stream, which the scenario has seen to; UserError where there is none."""
    if round.intake is None:
        raise UserError(
            "training.contrast learns from what comes in a stream and there is none: add [data.stream]"
        )
    return Learner(round, round.intake, choice)


def kept_state(stream: dict[str, Tensor]) -> dict[str, Tensor]:
    """What of a stream's state is of learning by contrast."""
    return {name: tensor for name, tensor in stream.items() if name.startswith(STATE)}


def require_no_labels(*methods: object) -> None:
    """UserError where a program brings what learning by contrast has no use for."""
    if any(method is not None for method in methods):
        raise UserError(
            "device.train: training.contrast learns without labels, by a loss and views of its own: leave "
            "instance_filter, quantization, loss and transform out, or training.contrast"
        )


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    whole = np.empty(0, np.int64)
    return whole, whole, np.empty(0, np.float64)
