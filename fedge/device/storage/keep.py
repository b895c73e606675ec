"""What a device keeps of the frames that come: rules of a few lines, and one's own is another.

    def rule(frames, room, generator):          # file.py:rule
        return indices of the frames to keep, at most `room` of them

`frames` are those in memory and, behind them, some that have just come: a block of at most 64. The rule is asked block
by block, so that a device never holds more than its memory and one block. All chance must come from `generator`
(NumPy's), which is seeded by (run, client, interval).

    fifo       the latest
    reservoir  every frame so far with the same probability (Vitter, algorithm R, ACM TOMS 11(1), 1985)
    balanced   a frame more, and one less of the class that has most (GDumb: Prabhu et al., ECCV 2020)
    scenes     a reservoir of those that are no near-duplicates of the frames just before
    filter     those that the early instance filter gives the highest score
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedge.catalog import names
from fedge.catalog.named import Named
from fedge.errors import UserError

BLOCK = 64


@dataclass(frozen=True, eq=False)
class Offered:
    """Frames in memory, then new ones, in the order in which they came; all arrays [F].

    label: -1 where none has come yet. new: not in memory yet. repeated: a near-duplicate of the frames just before
    (keep "scenes" alone). score: the filter's (keep "filter" alone). met: frames that were new before and not repeated.
    """

    number: NDArray[np.int64]
    time_h: NDArray[np.float64]
    label: NDArray[np.int64]
    new: NDArray[np.bool_]
    repeated: NDArray[np.bool_]
    score: NDArray[np.float64]
    met: int
    pictures: Callable[[], NDArray[Any]]  # what they show [F, C, H, W], as rows are stored

    def __len__(self) -> int:
        return len(self.number)


Rule = Callable[[Offered, int, np.random.Generator], Iterable[int]]


def fifo(frames: Offered, room: int, generator: np.random.Generator) -> Iterable[int]:
    """The latest."""
    return range(max(0, len(frames) - room), len(frames))


def reservoir(frames: Offered, room: int, generator: np.random.Generator) -> Iterable[int]:
    """The n-th frame takes a random place with probability room / n."""
    kept = np.flatnonzero(~frames.new).tolist()
    candidates = np.flatnonzero(frames.new & ~frames.repeated).tolist()
    for met, frame in enumerate(candidates, start=frames.met + 1):
        if len(kept) < room:
            kept.append(frame)
        elif (place := int(generator.integers(met))) < room:
            kept[place] = frame
    return sorted(kept)


scenes = reservoir
"""The same: what is repeated is told by the device."""


def balanced(frames: Offered, room: int, generator: np.random.Generator) -> Iterable[int]:
    """The largest class gives one up, the new frame's perhaps; frames whose label has not come are one class more."""
    kept = np.flatnonzero(~frames.new).tolist()
    for frame in np.flatnonzero(frames.new).tolist():
        kept.append(frame)
        if len(kept) > room:
            [(largest, _)] = Counter(frames.label[kept].tolist()).most_common(1)
            of_it = [place for place, held in enumerate(kept) if frames.label[held] == largest]
            del kept[of_it[int(generator.integers(len(of_it)))]]
    return kept


def by_filter(frames: Offered, room: int, generator: np.random.Generator) -> Iterable[int]:
    """The highest scores; of equal ones the latest."""
    best = np.lexsort((frames.number, frames.score))[-room:]
    return sorted(best.tolist())


RULES: Mapping[str, Rule] = Named(names.KEEPS)


def kept_by(rule: Rule, frames: Offered, room: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """What the rule keeps, in order of arrival. UserError where that is not what it may."""
    said: object = rule(frames, room, generator)
    name = getattr(rule, "__name__", type(rule).__name__)
    if not isinstance(said, Iterable):
        raise UserError(f"data.stream.keep: {name} returned a {type(said).__name__}; indices are wanted")
    kept: Sequence[Any] = list(said)
    try:
        kept_M = np.unique(np.array(kept, dtype=np.int64)) if kept else np.empty(0, np.int64)
    except (TypeError, ValueError, OverflowError):
        kept_M = np.array([-1])
    inside = not len(kept_M) or (kept_M[0] >= 0 and kept_M[-1] < len(frames))
    if len(kept_M) != len(kept) or not inside or len(kept) > room:
        raise UserError(
            f"data.stream.keep: {name} returned {len(kept)} indices of {len(frames)} frames; at most {room} are "
            f"wanted, each once, 0 to {len(frames) - 1}"
        )
    return kept_M
