"""A client's stream: the same whoever asks, whenever; labels in their time; a baseline that never looks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.data.stream.blind import blind_right
from tests.data.stream.made_up import Choice, Drift, shard, stream


def told(one, interval: int) -> list[list[float]]:
    """All that is known of an interval's frames."""
    frames = one.interval(interval)
    pictures = one.pictures(frames)
    return [
        [float(value[place]) for value in vars(frames).values()] + pictures[place].ravel().tolist()
        for place in range(len(frames))
    ]


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["iid", "runs", "parked", "classes"]), st.permutations(range(1, 6)), st.integers(0, 50)
)
def test_an_interval_is_a_function_of_seed_client_and_number(order: str, asked, client: int) -> None:
    """Breaks if what arrives depends on the engine, on hosts, or on the order in which anything was asked."""
    choice = {
        "order": order,
        "labelled": 0.5,
        "label_delay_h": 1.0,
        "drift": [Drift(kind="gradual", width_h=1.0)],
    }
    one = stream(client=client, **choice)
    here = {interval: told(one, interval) for interval in asked}
    assert here == {interval: told(stream(client=client, **choice), interval) for interval in range(1, 6)}


def test_clients_and_seeds_differ() -> None:
    """Breaks if all devices see one stream."""
    assert told(stream(), 1) != told(stream(client=1), 1)
    assert told(stream(), 1) != told(stream(seed=2), 1)


def test_frames_of_a_run_differ_and_shuffled_rows_are_as_stored() -> None:
    """Breaks if a camera's frames are copies, which any hash would tell apart from new scenes, or if rows that are no
    frames are changed."""
    runs = stream(order="runs", rate=60)
    frames = runs.interval(1)
    pictures = runs.pictures(frames)
    same = np.flatnonzero(np.diff(frames.row) == 0)
    assert len(same) > 10 and all((pictures[place] != pictures[place + 1]).any() for place in same)
    plain = stream()
    frames = plain.interval(2)
    assert (plain.pictures(frames) == plain.shard.x[frames.row]).all()
    assert (frames.label == plain.shard.y[frames.row]).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 5), st.floats(0.05, 1), st.integers(1, 6))
def test_labels_never_come_before_their_delay(delay_h: float, share: float, interval: int) -> None:
    """Breaks if a device trains on a label that nobody has given yet."""
    frames = stream(label_delay_h=delay_h, labelled=share).interval(interval)
    assert (frames.label_h >= frames.time_h + delay_h).all()
    hour = interval * 0.5
    assert not (frames.known(hour) & (frames.time_h + delay_h > hour)).any()


def test_the_labelled_share_is_what_it_says() -> None:
    """Breaks if more frames are labelled than the scenario pays for."""
    frames = stream(rate=4000, labelled=0.3).interval(1)
    assert np.isfinite(frames.label_h).mean() == pytest.approx(0.3, abs=0.04)


def test_held_out_rows_are_the_same_in_all_intervals() -> None:
    """Breaks if a row that is tested on now is stored an hour later."""
    one = stream(rate=200)
    frames = [one.interval(k) for k in range(1, 8)]
    held = {int(row) for each in frames for row in each.row[each.held_out]}
    stored = {int(row) for each in frames for row in each.row[~each.held_out]}
    assert not held & stored and len(held) == 16


@pytest.mark.parametrize("delay_h", [0.0, 0.2, 1.3])
def test_the_blind_baseline_repeats_the_last_label_that_has_come(delay_h: float) -> None:
    """Breaks if the baseline is told more, or less, than a device is: it is read beside test-then-train."""
    one = stream(order="runs", rate=30, label_delay_h=delay_h, labelled=0.7)
    past = [one.interval(k) for k in range(1, 6)]
    for interval in (1, 3, 5):
        frames = past[interval - 1]
        expected = []
        for time_h, label in zip(frames.time_h, frames.label, strict=True):
            known = [
                (told_h, said)
                for each in past
                for told_h, said, held in zip(each.label_h, each.label, each.held_out, strict=True)
                if told_h < time_h and not held
            ]
            expected.append(bool(known) and max(known)[1] == label)
        assert blind_right(one, interval, frames).tolist() == expected


def test_blind_is_right_where_labels_repeat() -> None:
    """Breaks if runs of 16 are not seen for what they are: 15 of 16 labels are the last one."""
    one = stream(order="runs", rate=4000, rows=400)
    frames = one.interval(1)
    frames = frames[~frames.held_out]
    assert blind_right(one, 1, frames).mean() == pytest.approx(0.95, abs=0.03)


def test_the_settings_written_here_are_the_scenarios() -> None:
    """Breaks if these tests go on with keys that a scenario no longer has."""
    from fedge.scenario.stream.section import Drift as ScenarioDrift
    from fedge.scenario.stream.section import Stream as ScenarioStream

    assert set(vars(Choice())) <= set(ScenarioStream.model_fields)
    assert set(vars(Drift())) == set(ScenarioDrift.model_fields)
    assert shard().num_classes == 4
