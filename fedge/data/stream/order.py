"""Which of a client's rows each frame shows: turn by turn through the rows, a turn being one frame or several.

    iid        shuffled epochs: every row once, then all again in another order
    runs       the same in runs of 16 frames of one row
    parked     a row stays for L frames, P(L >= l) = 1 / l up to 500: half of the rows are gone after one frame, and
               half of the frames are of one row in fifty
    long_tail  class c has 100^(-c / (C - 1)) of its rows
    classes    one class more every so many hours, in an order of the client's own, shuffled among those already there
    stc        a class for `stc` frames, one row each, then the client's next class, in an order drawn anew each time
               all have come; a class goes through its rows epoch by epoch
    recorded   the rows in the order of their recording, once

Frames in runs differ as a camera's do (pictures.py). Shapes: F frames, R rows, r those that an order shows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedge.data.stream import chance
from fedge.seeding import derive_seed

TAIL_RATIO = 100
RUN_LENGTH = 16
LONGEST_STAY = 500
IN_RUNS = ("runs", "parked")
_STAYS_AT_ONCE = 1 << 14

Numbers = NDArray[np.int64]
Turns = Callable[[int, int], Numbers]


@dataclass(frozen=True, eq=False)
class Order:
    """`kind` as above; `y_R`: the rows' classes, of `num_classes`. `seed` is the client's; `stc` that order's."""

    kind: str
    y_R: Numbers
    num_classes: int
    seed: int
    class_every_h: float = 1.0
    stc: int = 1

    def turns(self, first: int, count: int) -> Numbers:
        """The turn that each of `count` frames from number `first` belongs to [F], rising."""
        if self.kind == "parked":
            return _parked(first, count, derive_seed(self.seed, "stays"))
        number_F = np.arange(first, first + count)
        return number_F // RUN_LENGTH if self.kind == "runs" else number_F

    def rows(self, turn_F: Numbers, hour: float) -> Numbers:
        """The row that is shown at each turn [F], in the interval that ends at `hour`; fewer where a record ends."""
        if self.kind == "recorded":
            return turn_F[turn_F < len(self.y_R)]
        if self.kind == "stc":
            return self._in_classes(turn_F)
        return _epochs(self._shown(hour), turn_F, derive_seed(self.seed, "epochs"))

    def _in_classes(self, turn_F: Numbers) -> Numbers:
        """Every class has had as many stays as there were epochs of classes, so that a turn alone says which row."""
        own_C = np.unique(self.y_R)
        stay_F, within_F = np.divmod(turn_F, self.stc)
        class_F = _epochs(own_C, stay_F, derive_seed(self.seed, "stays of classes"))
        shown_F = stay_F // len(own_C) * self.stc + within_F  # of its class, in order
        row_F = np.empty_like(turn_F)
        for label in np.unique(class_F).tolist():
            now = class_F == label
            of_class_r = np.flatnonzero(self.y_R == label)
            row_F[now] = _epochs(of_class_r, shown_F[now], derive_seed(self.seed, "rows of a class", label))
        return row_F

    def _shown(self, hour: float) -> Numbers:
        """The rows there are to show."""
        every_R = np.arange(len(self.y_R))
        if self.kind == "long_tail":
            share_C = TAIL_RATIO ** (-np.arange(self.num_classes) / max(1, self.num_classes - 1))
            drawn_R = chance.shares(derive_seed(self.seed, "tail"), every_R)
            shown_r = every_R[drawn_R < share_C[self.y_R]]
            return shown_r if len(shown_r) else every_R
        if self.kind == "classes":
            own_C = np.random.default_rng(derive_seed(self.seed, "classes")).permutation(np.unique(self.y_R))
            there = int(np.ceil(hour / self.class_every_h))
            return every_R[np.isin(self.y_R, own_C[: max(1, there)])]
        return every_R


def _epochs(shown_r: Numbers, turn_F: Numbers, seed: int) -> Numbers:
    """Epoch after epoch, each in an order of its own."""
    if not len(turn_F):
        return turn_F
    epoch_F, place_F = np.divmod(turn_F, len(shown_r))
    row_F = np.empty_like(turn_F)
    for epoch in np.unique(epoch_F):
        order_r = np.random.default_rng(derive_seed(seed, int(epoch))).permutation(len(shown_r))
        now = epoch_F == epoch
        row_F[now] = shown_r[order_r[place_F[now]]]
    return row_F


def _parked(first: int, count: int, seed: int) -> Numbers:
    """The turn of each frame, where turn i lasts for as many frames as the i-th number of the generator says."""
    generator = np.random.default_rng(seed)
    turn_F, number_F = np.empty(count, np.int64), np.arange(first, first + count)
    turns = frames = 0
    while frames < first + count:
        stay_S = np.minimum(1 / (1 - generator.random(_STAYS_AT_ONCE)), LONGEST_STAY).astype(np.int64)
        end_S = frames + np.cumsum(stay_S)
        now = (number_F >= frames) & (number_F < end_S[-1])
        turn_F[now] = turns + np.searchsorted(end_S, number_F[now], side="right")
        turns, frames = turns + len(stay_S), int(end_S[-1])
    return turn_F
