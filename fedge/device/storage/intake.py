"""A device's stream in one round: it tests the frames that came, keeps some, and trains on what it keeps.

Round r stands at the end of interval r: it takes in the intervals since the device's last round, in order, with the
network that the last round left. A frame is tested before it is offered to memory, and only if its row was in memory at
the end of no round before: so nothing is tested that may have been trained on.

Shapes: F frames, M in memory, R of the client's training rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedge.data.shard import Shard
from fedge.data.stream.blind import blind_right
from fedge.data.stream.stream import Frames, Stream
from fedge.device.storage.detecting import Detecting
from fedge.device.storage.keep import BLOCK, Offered, Rule, kept_by
from fedge.device.storage.stored import Stored
from fedge.device.storage.watching import Scenes, Scores
from fedge.protocol.report import MOST_ALARMS
from fedge.training.stats import Evaluation

Judge = Callable[[Shard], Evaluation]
"""Evaluates the device's network on the training rows of a shard."""

DETECTOR = "detector."  # before the names of the detector's part of the state
_LOOK = 256  # frames made and evaluated at a time


@dataclass(frozen=True)
class Watch:
    """How a device stores: the rule, what it looks at before (either, or nothing), and how much there is room for."""

    rule: Rule
    memory: int
    scenes: Scenes | None = None
    scores: Scores | None = None

    @property
    def macs(self) -> int:
        """Spent on looking."""
        return sum(looked.macs for looked in (self.scenes, self.scores) if looked is not None)


class Intake:
    """`stored` is the memory as it stands, `counts` the report's figures so far. detecting: None: no detector."""

    def __init__(
        self,
        stream: Stream,
        stored: Stored,
        watch: Watch,
        *,
        round: int,
        horizon: int,
        judge: Judge,
        seed: Callable[..., int],
        detecting: Detecting | None = None,
    ) -> None:
        self.stream = stream
        self.stored = stored
        self.watch = watch
        self.detecting = detecting
        self.counts = dict.fromkeys(("arrived", "labelled", "ttt_correct", "ttt_count", "blind_correct"), 0)
        self._round, self._horizon, self._since = round, horizon, stored.until
        self._judge, self._seed = judge, seed

    @property
    def hour(self) -> float:
        """When the round begins."""
        return self._round * self.stream.interval_h

    def take_in(self) -> None:
        """All that came since the device's last round."""
        for interval in range(self.stored.until + 1, self._round + 1):
            self._take_in(interval)
        met_R = self.stored.met_R.copy()
        met_R[self.stored.row] = True
        self.stored = replace(self.stored, until=self._round, met_R=met_R)

    @cached_property
    def shard(self) -> Shard:
        """The client's shard with what may be trained on: the frames in memory whose labels have come."""
        frames = self._in_memory
        return self._showing(frames[frames.known(self.hour)])

    def came(self) -> Frames:
        """What came since the device's last round, but for what is held out, in the order in which it came."""
        frames = [self.stream.interval(number) for number in range(self._since + 1, self._round + 1)]
        own = [some[~some.held_out] for some in frames]
        number, row, time_h = (
            np.concatenate([getattr(some, name) for some in own]) for name in ("number", "row", "time_h")
        )
        return self.stream.frames(number, row, time_h)

    def learnt_from(self, row_B: NDArray[np.int64]) -> None:
        """These of the client's training rows were shown to the network outside of `shard`: no test asks for them."""
        met_R = self.stored.met_R.copy()
        met_R[row_B] = True
        self.stored = replace(self.stored, met_R=met_R)

    def drawn(self, rows_B: NDArray[np.int64]) -> None:
        """These rows of `shard` are in a mini-batch that is about to be trained on."""
        self._trained_M[self._known[rows_B]] = True

    def report(self) -> dict[str, Any]:
        """The report's figures, at the round's end: with the network that was trained."""
        next_one = self._round + 1
        future = self._tally(range(next_one, next_one + self._horizon))
        past = self._tally(range(1, 1 + self._horizon))
        return {
            **self.counts,
            "stored": len(self.stored),
            "trained": int((self._trained_M & ~self.stored.trained).sum()),
            "future_correct": future[0],
            "future_count": future[1],
            "past_correct": past[0],
            "past_count": past[1],
            **({"alarms": min(self.detecting.alarms, MOST_ALARMS)} if self.detecting else {}),
        }

    def state(self) -> dict[str, torch.Tensor]:
        """For the device's state, at the round's end."""
        scenes = self.watch.scenes
        held = replace(self.stored, trained=self._trained_M, rule=scenes.tensors if scenes else {}).tensors()
        if self.detecting is not None:
            held |= {f"{DETECTOR}{name}": tensor for name, tensor in self.detecting.tensors().items()}
        return held

    @cached_property
    def _in_memory(self) -> Frames:
        held = self.stored
        return self.stream.frames(held.number, held.row, held.time_h)

    @cached_property
    def _known(self) -> NDArray[np.int64]:
        """Where in memory the rows of `shard` are."""
        return np.flatnonzero(self._in_memory.known(self.hour))

    @cached_property
    def _trained_M(self) -> NDArray[np.bool_]:
        return self.stored.trained.copy()

    def _take_in(self, interval: int) -> None:
        frames = self.stream.interval(interval)
        frames = frames[~frames.held_out]
        fresh_F = ~self.stored.met_R[frames.row] & np.isfinite(frames.label_h)
        hour = interval * self.stream.interval_h
        generator = np.random.default_rng(self._seed("keep", interval))
        self.counts["arrived"] += len(frames)
        self.counts["labelled"] += int(np.isfinite(frames.label_h).sum())
        self.counts["ttt_count"] += int(fresh_F.sum())
        self.counts["blind_correct"] += int(blind_right(self.stream, interval, frames[fresh_F]).sum())
        for start in range(0, len(frames), _LOOK):
            some, fresh = frames[start : start + _LOOK], fresh_F[start : start + _LOOK]
            seen = self._showing(some)
            if fresh.any():
                right_N = self._judge(seen).right_N.numpy()
                self.counts["ttt_correct"] += int(right_N[fresh].sum())
                if self.detecting is not None:
                    self.detecting.answered(~right_N[fresh], some.label_h[fresh])
            self._offer(some, seen, hour, generator)
        if self.detecting is not None:
            self.detecting.look(hour)

    def _offer(self, frames: Frames, seen: Shard, hour: float, generator: np.random.Generator) -> None:
        """To memory, block by block."""
        repeated_F, score_F = np.zeros(len(frames), bool), np.zeros(len(frames))
        if self.watch.scenes or self.watch.scores:
            x_FCHW = next(seen.batches("train", _LOOK))[0]
            if self.watch.scenes:
                repeated_F = self.watch.scenes.repeated(x_FCHW).numpy()
            if self.watch.scores:
                score_F = self.watch.scores.of(x_FCHW).double().numpy()
        for start in range(0, len(frames), BLOCK):
            now = slice(start, start + BLOCK)
            self._offer_block(frames[now], repeated_F[now], score_F[now], hour, generator)

    def _offer_block(
        self,
        frames: Frames,
        repeated_F: NDArray[np.bool_],
        score_F: NDArray[np.float64],
        hour: float,
        generator: np.random.Generator,
    ) -> None:
        held = len(self.stored)
        fields: dict[str, NDArray[Any]] = {
            "number": frames.number,
            "row": frames.row,
            "time_h": frames.time_h,
            "score": score_F,
            "trained": np.zeros(len(frames), bool),
        }
        both = self.stored.joined(**fields)
        offered = self.stream.frames(both.number, both.row, both.time_h)
        rule = Offered(
            number=both.number,
            time_h=both.time_h,
            label=np.where(offered.known(hour), offered.label, -1),
            new=np.arange(len(both)) >= held,
            repeated=np.concatenate([np.zeros(held, bool), repeated_F]),
            score=both.score,
            met=both.met,
            pictures=lambda: self.stream.pictures(offered),
        )
        kept_M = kept_by(self.watch.rule, rule, self.watch.memory, generator)
        self.stored = replace(both.chosen(kept_M), met=both.met + int((~repeated_F).sum()))

    def _tally(self, intervals: range) -> tuple[int, int]:
        """Right answers and questions on held-out frames: of frames of one row in a row, the first."""
        right = count = 0
        for interval in intervals:
            frames = self.stream.interval(interval)
            frames = frames[frames.held_out]
            frames = frames[np.diff(frames.row, prepend=-1) != 0]
            for some in frames.blocks(_LOOK):
                right += int(self._judge(self._showing(some)).right_N.sum())
            count += len(frames)
        return right, count

    def _showing(self, frames: Frames) -> Shard:
        """The client's shard with these frames as its training rows."""
        return self.stream.shard.with_training(self.stream.pictures(frames), frames.label)
