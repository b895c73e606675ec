"""One client's stream: the frames of an interval, what they show, and when their labels come.

Everything is a function of (seed, client, interval): two devices that ask twice, in any order, on any host, are told
the same, and a device that was away misses nothing but its chance to train.

Shapes: F frames, R of the client's training rows, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from fedge.data.shard import Shard
from fedge.data.stream import chance, pictures
from fedge.data.stream.arrivals import Arrivals
from fedge.data.stream.drift import DriftChoice, drifted, swapped_classes
from fedge.data.stream.holdout import BETWEEN, HELD_OUT, parts
from fedge.data.stream.order import IN_RUNS, Order
from fedge.seeding import derive_seed

Numbers = NDArray[np.int64]
Hours = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Choice(Protocol):
    """A scenario's `[data.stream]`, as far as it is read here."""

    order: Any
    class_every_h: float
    stc: int | None
    label_delay_h: float
    labelled: float
    holdout: float

    @property
    def drift(self) -> Sequence[Any]:
        """As `DriftChoice`."""
        ...


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames in the order in which they came, all fields [F].

    number: from 0 on in the client's stream. row: of the client's training rows, that it shows. time_h: when it came.
    label: what it is, drift included. label_h: when the device is told; infinite: never. held_out: never stored.
    """

    number: Numbers
    row: Numbers
    time_h: Hours
    label: Numbers
    label_h: Hours
    held_out: Mask

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, which: slice | Mask | Numbers) -> Self:
        return type(self)(*(getattr(self, field.name)[which] for field in fields(self)))

    def known(self, hour: float) -> Mask:
        """Whose label has come by `hour`."""
        return self.label_h <= hour

    def blocks(self, size: int) -> Iterator[Self]:
        """The frames, some at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))


@dataclass(frozen=True, eq=False)
class Stream:
    """The stream of the client whose rows `shard` holds.

    seed: of the world. client: its number in the fleet. arrivals: when frames come. interval_h: hours of an interval.
    overlap: as in `holdout.parts`, of rows in the order of recording.
    """

    shard: Shard
    choice: Choice
    arrivals: Arrivals
    interval_h: float
    seed: int
    client: int
    overlap: int = 0

    def interval(self, number: int) -> Frames:
        """The frames of an interval, from 1."""
        first, time_F = self.arrivals.of(number)
        turn_F = self._order.turns(first, len(time_F))
        row_F = self._order.rows(turn_F, number * self.interval_h)
        number_F, time_F = np.arange(first, first + len(row_F)), time_F[: len(row_F)]
        row_F = self._of_new_classes(row_F, turn_F[: len(row_F)], time_F)
        shown_F = self._part_R[row_F] != BETWEEN
        return self.frames(number_F[shown_F], row_F[shown_F], time_F[shown_F])

    def frames(self, number_F: Numbers, row_F: Numbers, time_F: Hours) -> Frames:
        """The frames of these numbers, as which and when they came being known."""
        labelled_F = chance.shares(self._key("labelled"), number_F) < self.choice.labelled
        return Frames(
            number=number_F,
            row=row_F,
            time_h=time_F,
            label=self._labels(row_F, number_F, time_F),
            label_h=np.where(labelled_F, time_F + self.choice.label_delay_h, np.inf),
            held_out=self._part_R[row_F] == HELD_OUT,
        )

    def pictures(self, frames: Frames) -> NDArray[Any]:
        """What the frames show [F, C, H, W], as rows are stored."""
        rows = self.shard.rows("train", frames.row)
        if not len(rows) or not (self.in_runs or self._spoils):
            return rows
        x_FCHW = pictures.scaled(rows)
        if self.in_runs:
            x_FCHW = pictures.next_frames(x_FCHW, self._std_C, self._key("frames"), frames.number)
        for place, drift in self._spoils:
            now = torch.from_numpy(drifted(drift, self._drift_seed(place), frames.number, frames.time_h))
            if now.any():
                x_FCHW[now] = self._spoilt(x_FCHW[now], drift, place, frames.number[now.numpy()])
        return pictures.stored(x_FCHW, rows.dtype)

    @property
    def in_runs(self) -> bool:
        """Whether frames come in runs of one scene."""
        return self.choice.order in IN_RUNS

    def _labels(self, row_F: Numbers, number_F: Numbers, time_F: Hours) -> Numbers:
        label_F = self._y_R[row_F]
        for place, drift in self._drifts("concept"):
            new_C = swapped_classes(
                self.shard.num_classes, drift.severity, derive_seed(self.seed, "concept", place)
            )
            now_F = drifted(drift, self._drift_seed(place), number_F, time_F)
            label_F = np.where(now_F, new_C[label_F], label_F)
        return label_F

    def _of_new_classes(self, row_F: Numbers, turn_F: Numbers, time_F: Hours) -> Numbers:
        """Drift of P(y): a favoured half of the client's classes takes `severity` fifths of the others' turns.

        Of `classes` it does so before the drift, and after it the other half does. What is held out is replaced by what
        is held out. Whole turns are, so that runs stay runs.
        """
        for place, drift in self._drifts("labels", "classes"):
            seed = self._drift_seed(place)
            own_C = np.random.default_rng(derive_seed(seed, "favoured")).permutation(np.unique(self._y_R))
            favoured_R = np.isin(self._y_R, own_C[: -(-len(own_C) // 2)])
            yields_F = chance.shares(derive_seed(seed, "yields"), turn_F) < drift.severity / 5
            new_F = drifted(drift, seed, turn_F, time_F)
            draw_F = chance.draws(derive_seed(seed, "instead"), turn_F)
            before_F = row_F
            for comes_R, when_F in _comings(drift.what, favoured_R, new_F):
                now_F = yields_F & when_F & ~comes_R[before_F]
                for part in np.unique(self._part_R):
                    pool = np.flatnonzero(comes_R & (self._part_R == part))
                    if len(pool):
                        of_part_F = now_F & (self._part_R[before_F] == part)
                        row_F = np.where(of_part_F, pool[draw_F % np.uint64(len(pool))], row_F)
        return row_F

    def _spoilt(
        self, x_FCHW: torch.Tensor, drift: DriftChoice, place: int, number_F: Numbers
    ) -> torch.Tensor:
        if drift.what == "scene":
            return pictures.turned(x_FCHW, drift.severity)
        if drift.how == "blur":
            return pictures.blur(x_FCHW, drift.severity)
        if drift.how == "contrast":
            return pictures.contrast(x_FCHW, drift.severity)
        key = derive_seed(self._drift_seed(place), "noise")
        return pictures.noise(x_FCHW, self._scale_C, drift.severity, key, number_F)

    def _drifts(self, *what: str) -> list[tuple[int, DriftChoice]]:
        return [(place, drift) for place, drift in enumerate(self.choice.drift) if drift.what in what]

    @cached_property
    def _spoils(self) -> list[tuple[int, DriftChoice]]:
        return self._drifts("corruption", "scene")

    def _key(self, purpose: str) -> int:
        return derive_seed(self._client_seed, purpose)

    def _drift_seed(self, place: int) -> int:
        return derive_seed(self._client_seed, "drift", place)

    @cached_property
    def _client_seed(self) -> int:
        return derive_seed(self.seed, self.client, "stream")

    @cached_property
    def _y_R(self) -> Numbers:
        return self.shard.labels("train")

    @cached_property
    def _part_R(self) -> NDArray[np.int8]:
        overlap = self.overlap if self.choice.order == "recorded" else None
        return parts(len(self._y_R), self.choice.holdout, self._key("held out"), overlap=overlap)

    @cached_property
    def _order(self) -> Order:
        return Order(
            self.choice.order,
            self._y_R,
            self.shard.num_classes,
            self._client_seed,
            self.choice.class_every_h,
            self.choice.stc or 1,
        )

    @cached_property
    def _std_C(self) -> torch.Tensor:
        return torch.tensor(self.shard.std)

    @cached_property
    def _scale_C(self) -> torch.Tensor:
        """What 1 is on the scale of the constants of pictures.py, per channel."""
        as_bytes = self.shard.rows("train", np.empty(0, np.int64)).dtype == np.uint8
        return torch.ones(len(self.shard.std)) if as_bytes else pictures.RANGE_STDS * self._std_C


def _comings(what: str, favoured_R: Mask, new_F: Mask) -> list[tuple[Mask, Mask]]:
    """Whose rows push the others out [R], and at which frames [F]."""
    after = (~favoured_R if what == "classes" else favoured_R, new_F)
    return [(favoured_R, ~new_F), after] if what == "classes" else [after]
