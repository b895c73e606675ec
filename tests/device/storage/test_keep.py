"""What a device keeps: each rule by its law, the room never exceeded, one's own rule held to its word."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.device.storage.keep import RULES, Offered, kept_by
from fedge.errors import UserError

RNG = np.random.default_rng


def offered(held: int, new: int, *, met: int = 0, label=None, repeated=None, score=None) -> Offered:
    frames = held + new
    return Offered(
        number=np.arange(frames),
        time_h=np.arange(frames) / 10,
        label=np.zeros(frames, np.int64) if label is None else np.array(label),
        new=np.arange(frames) >= held,
        repeated=np.zeros(frames, bool) if repeated is None else np.array(repeated),
        score=np.zeros(frames) if score is None else np.array(score, float),
        met=met,
        pictures=lambda: np.zeros((frames, 1, 2, 2), np.uint8),
    )


@pytest.mark.parametrize("name", sorted(RULES))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_rule_keeps_more_than_there_is_room_for(name: str, data: st.DataObject) -> None:
    """Breaks if a device's memory grows: the only bound of what it holds."""
    room = data.draw(st.integers(1, 12))
    held, new = data.draw(st.integers(0, room)), data.draw(st.integers(0, 20))
    frames = offered(
        held,
        new,
        met=held,
        label=data.draw(st.lists(st.integers(-1, 3), min_size=held + new, max_size=held + new)),
    )
    kept = kept_by(RULES[name], frames, room, RNG(data.draw(st.integers(0, 99))))
    assert len(kept) == min(room, held + new)
    assert (np.diff(kept) > 0).all()


def test_a_reservoir_holds_every_frame_with_the_same_probability() -> None:
    """Breaks if a reservoir favours early or late frames; block by block, as a device is offered them."""
    times_kept = np.zeros(60)
    for seed in range(1500):
        generator, held, met = RNG(seed), np.empty(0, np.int64), 0
        for start in range(0, 60, 20):
            both = np.concatenate([held, np.arange(start, start + 20)])
            held = both[kept_by(RULES["reservoir"], offered(len(held), 20, met=met), 6, generator)]
            met += 20
        times_kept[held] += 1
    assert times_kept / 1500 == pytest.approx(0.1, abs=0.035)
    assert times_kept[:20].mean() == pytest.approx(times_kept[40:].mean(), rel=0.1)


def test_scenes_leaves_repeated_frames_out() -> None:
    """Breaks if a parked camera fills the memory with one picture."""
    repeated = [False] * 2 + [False, True, True, True, False, True]
    assert kept_by(RULES["scenes"], offered(2, 6, met=2, repeated=repeated), 8, RNG(0)).tolist() == [
        0,
        1,
        2,
        6,
    ]


def test_balanced_takes_from_the_largest_class() -> None:
    """Breaks if a rare class is pushed out of memory by a frequent one."""
    label = [1, 2, 0, 0, 0, 0, 0, 0, 0]
    kept = kept_by(RULES["balanced"], offered(3, 6, label=label), 4, RNG(0))
    assert [label[frame] for frame in kept].count(0) == 2 and {0, 1} <= set(kept.tolist())


def test_fifo_and_filter_keep_what_they_say() -> None:
    """Breaks if the first in is not the first out, or if the filter's least wanted frames are kept."""
    assert kept_by(RULES["fifo"], offered(2, 3), 3, RNG(0)).tolist() == [2, 3, 4]
    assert kept_by(RULES["filter"], offered(2, 3, score=[5, 0, 3, 1, 4]), 3, RNG(0)).tolist() == [0, 2, 4]


@pytest.mark.parametrize("said", [[0, 0], [9], [-1], [0, 1, 2, 3], ["a"], 3, None])
def test_a_rule_of_ones_own_is_held_to_its_word(said: object) -> None:
    """Breaks if a mistake in a rule stores a frame twice or more than fits, or ends in a traceback."""

    def mine(frames: Offered, room: int, generator: np.random.Generator):
        return said

    with pytest.raises(UserError, match=r"data\.stream\.keep: mine returned"):
        kept_by(mine, offered(1, 3), 3, RNG(0))
