"""The blind baseline: it never looks at a frame and says that it is what the last label said.

A stream of scenes repeats its labels, and what an accuracy on it is worth is seen beside this one (Al Kader Hammoud et
al., ICCV 2023, arXiv 2305.09275). It waits for labels like the device: with a delay it repeats an old one.
"""

import itertools

import numpy as np

from fedge.data.stream.stream import Frames, Mask, Stream


def blind_right(stream: Stream, interval: int, frames: Frames) -> Mask:
    """Whether the last label that had come before each of these frames of `interval` is theirs [F]; none: wrong."""
    told = _told(stream, interval)
    last_F = np.searchsorted(told.label_h, frames.time_h, side="left") - 1
    there_F = last_F >= 0
    right_F = np.zeros(len(frames), bool)
    right_F[there_F] = told.label[last_F[there_F]] == frames.label[there_F]
    return right_F


def _told(stream: Stream, interval: int) -> Frames:
    """The frames whose labels come by the interval's end, back to the last that had come before it."""
    begin_h = (interval - 1) * stream.interval_h
    found: list[Frames] = []
    for earlier in itertools.count(interval, -1):
        if earlier < 1:
            break
        frames = stream.interval(earlier)
        labelled = frames[np.isfinite(frames.label_h) & ~frames.held_out]
        found.insert(0, labelled)
        if len(labelled) and labelled.label_h[0] < begin_h:
            break
    merged = found[0]
    for more in found[1:]:
        merged = Frames(
            *(np.concatenate([getattr(part, name) for part in (merged, more)]) for name in vars(merged))
        )
    return merged
