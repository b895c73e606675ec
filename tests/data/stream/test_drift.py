"""Drift: when it begins, for whom, and what it does to pictures, labels and classes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.data.stream import pictures
from fedge.data.stream.drift import drifted, start_h, strength, swapped_classes
from tests.data.stream.made_up import Drift, stream


def test_strength_over_time() -> None:
    """Breaks if a drift begins early, never ends, or a recurring one does not come back."""
    hours = np.array([0.0, 1.9, 2.0, 2.5, 3.0, 3.5, 4.0, 9.0])
    assert strength(Drift(), 2.0, hours).tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert strength(Drift(kind="gradual", width_h=2.0), 2.0, hours).tolist() == [
        0,
        0,
        0,
        0.25,
        0.5,
        0.75,
        1,
        1,
    ]
    assert strength(Drift(kind="recurring", width_h=1.0), 2.0, hours).tolist() == [0, 0, 1, 1, 0, 0, 1, 0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**40), st.floats(0, 20))
def test_a_staggered_drift_begins_within_its_span(seed: int, staggered_h: float) -> None:
    """Breaks if clients drift before the scenario's hour, or after the last."""
    assert 2.0 <= start_h(Drift(staggered_h=staggered_h), seed) <= 2.0 + staggered_h


def test_clients_of_a_staggered_fleet_drift_one_after_another() -> None:
    """Breaks if all clients drift at one moment: then nothing is learnt about a fleet."""
    starts = [start_h(Drift(staggered_h=12.0), seed) for seed in range(300)]
    assert np.ptp(starts) > 11 and np.std(starts) == pytest.approx(12 / 12**0.5, rel=0.1)
    assert len({start_h(Drift(), seed) for seed in range(9)}) == 1


def test_a_gradual_drift_mixes_old_and_new() -> None:
    """Breaks if gradual means half a corruption instead of one on half of the frames."""
    number_F = np.arange(4_000)
    mixed = drifted(Drift(kind="gradual", width_h=2.0), 1, number_F, np.full(4_000, 2.5))
    assert mixed.mean() == pytest.approx(0.25, abs=0.03)
    again = drifted(Drift(kind="gradual", width_h=2.0), 1, number_F[7:9], np.full(2, 2.5))
    assert again.tolist() == mixed[7:9].tolist()


@pytest.mark.parametrize("how", ["noise", "blur", "contrast"])
def test_a_corruption_spoils_pictures_from_its_hour_on_and_leaves_labels(how: str) -> None:
    """Breaks if frames before the drift are touched, frames after it are not, or a severe one is milder."""
    plain = stream(rate=200)
    far = {}
    for severity in (1, 5):
        spoilt = stream(rate=200, drift=[Drift(how=how, severity=severity)])
        for interval, after in ((4, False), (5, True)):
            frames = spoilt.interval(interval)
            assert frames.label.tolist() == plain.interval(interval).label.tolist()
            moved = spoilt.pictures(frames).astype(int) - plain.pictures(frames)
            assert moved.any() == after
            far[severity] = np.abs(moved).mean()
    assert far[5] > far[1] > 0


def test_a_turned_scene_is_turned() -> None:
    """Breaks if the camera's turn is none, or is another at every frame."""
    bar_11HW = torch.zeros(1, 1, 21, 21)
    bar_11HW[..., 10, :] = 1.0
    turned = pictures.turned(bar_11HW, 5)[0, 0]
    assert turned[10, 10] == pytest.approx(1.0, abs=0.1)
    diagonals = turned.diagonal().mean(), turned.flip(1).diagonal().mean()
    assert max(diagonals) > 0.4 > 0.2 > min(diagonals)  # 45 degrees
    assert (pictures.turned(bar_11HW, 0) - bar_11HW).abs().max() < 1e-5


def test_classes_swap_in_pairs() -> None:
    """Breaks if a concept drift loses a label or maps two classes to one."""
    new_C = swapped_classes(10, 3, 4)
    assert sorted(new_C) == list(range(10)) and (new_C != np.arange(10)).sum() == 6
    assert (new_C[new_C] == np.arange(10)).all()
    assert (swapped_classes(3, 5, 4) != np.arange(3)).sum() == 2


def test_a_concept_drift_is_every_clients_and_touches_labels_alone() -> None:
    """Breaks if clients swap other classes (then there is no concept), or if pictures change with the labels."""
    swaps = []
    for client in (0, 1):
        new, old = (
            stream(client=client, rate=100, drift=[Drift(what="concept", severity=1)]),
            stream(client=client, rate=100),
        )
        assert (new.interval(4).label == old.interval(4).label).all()
        after, before = new.interval(6), old.interval(6)
        assert (new.pictures(after) == old.pictures(before)).all()
        swaps.append({(int(a), int(b)) for a, b in zip(before.label, after.label, strict=True) if a != b})
    assert swaps[0] == swaps[1] and len(swaps[0]) == 2


def test_a_drift_of_labels_moves_their_frequency_and_keeps_held_out_apart() -> None:
    """Breaks if P(y) stays, or if a replaced frame lets a held-out row into memory."""
    new = stream(rate=400, drift=[Drift(what="labels", severity=5)])
    before, after = new.interval(4), new.interval(5)
    assert len(set(before.label.tolist())) == 4 and len(set(after.label.tolist())) == 2
    rows = [new.interval(k) for k in range(1, 9)]
    held = {int(row) for each in rows for row in each.row[each.held_out]}
    assert not held & {int(row) for each in rows for row in each.row[~each.held_out]}
    assert (after.label == new.shard.y[after.row]).all()


def shown(lines, *intervals: int) -> set[int]:
    return {int(label) for number in intervals for label in lines.interval(number).label}


def test_classes_change_hands_at_the_hour() -> None:
    """Breaks if yesterday's classes and today's overlap, or held-out frames do not follow: nobody could tell what a
    network that was pruned to yesterday's is worth today."""
    lines = stream(rate=200, drift=[Drift(what="classes", severity=5)])
    before, after = shown(lines, 1, 2, 3, 4), shown(lines, 5, 6, 7)
    assert len(before) == len(after) == 2 and not before & after
    frames = lines.interval(6)
    assert frames.held_out.any() and (frames.label == frames.row % 4).all()
    assert set(frames.label[frames.held_out]) <= after


def test_classes_that_recur_come_back() -> None:
    """Breaks if a recurring change of classes ends in neither half, or never returns."""
    lines = stream(rate=200, drift=[Drift(what="classes", kind="recurring", width_h=1.0, severity=5)])
    assert shown(lines, 1, 2) == shown(lines, 7, 8) != shown(lines, 5, 6) == shown(lines, 9, 10)


def test_a_mild_change_of_classes_leaves_some_of_the_others() -> None:
    """Breaks if severity means nothing here: of 5 steps, 2 take two fifths of the other half's turns."""
    mild = stream(rate=4000, drift=[Drift(what="classes", severity=2)])
    new = shown(stream(rate=200, drift=[Drift(what="classes", severity=5)]), 6)
    for interval, share in ((2, 0.5 * 0.6), (6, 1 - 0.5 * 0.6)):
        label_F = mild.interval(interval).label
        assert np.isin(label_F, list(new)).mean() == pytest.approx(share, abs=0.04)


def test_a_client_of_one_class_keeps_it() -> None:
    """Breaks if there is nothing to change to and the stream runs dry."""
    lines = stream(rate=200, drift=[Drift(what="classes", severity=5)])
    one = lines.shard.with_training(lines.shard.x, np.zeros(80, np.int64))
    alone = type(lines)(one, lines.choice, lines.arrivals, 0.5, 1, 0)
    assert shown(alone, 2) == shown(alone, 6) == {0}
