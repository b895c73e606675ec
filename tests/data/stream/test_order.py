"""When frames come and which row each shows: pure functions of a frame's number, and of nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.data.stream import chance
from fedge.data.stream.arrivals import PoissonArrivals, TracedArrivals, read_trace
from fedge.data.stream.holdout import BETWEEN, HELD_OUT, STORED, parts
from fedge.data.stream.order import LONGEST_STAY, Order
from fedge.errors import UserError

KINDS = ("iid", "runs", "parked", "long_tail", "classes", "recorded")


def order(kind: str, rows: int = 60, seed: int = 3) -> Order:
    return Order(kind, np.arange(rows) % 5, 5, seed, 1.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.floats(0.2, 80), st.integers(0, 2**32))
def test_intervals_follow_one_another(intervals: int, rate: float, seed: int) -> None:
    """Breaks if an interval's frames depend on which intervals were asked for before, or overlap with others."""
    arrivals = PoissonArrivals(rate, 0.5, seed)
    asked = [arrivals.of(interval) for interval in range(intervals, 0, -1)][::-1]
    following = 0
    for number, (first, time_F) in enumerate(asked, start=1):
        assert first == following
        following += len(time_F)
        assert (time_F > (number - 1) * 0.5).all() and (time_F <= number * 0.5).all()
        assert (np.diff(time_F) >= 0).all()


def test_arrivals_come_at_their_rate() -> None:
    """Breaks if a Poisson stream is faster or slower than what the scenario says."""
    counts = [len(PoissonArrivals(40, 0.25, seed).of(3)[1]) for seed in range(400)]
    assert np.mean(counts) == pytest.approx(10, abs=0.6)
    assert np.var(counts) == pytest.approx(10, abs=2.5)


def test_a_trace_gives_each_interval_its_own(tmp_path) -> None:
    """Breaks if an arrival on the border of two intervals is in both or in neither, or is another client's."""
    path = tmp_path / "arrivals.csv"
    path.write_text("client,time_h\n1,0.5\n0,2.0\n0,1.0\n0,0.25\n")
    zero, one = read_trace(path, 2)
    arrivals = TracedArrivals(zero, 1.0)
    assert [arrivals.of(k)[1].tolist() for k in (1, 2, 3)] == [[0.25, 1.0], [2.0], []]
    assert [arrivals.of(k)[0] for k in (1, 2, 3)] == [0, 2, 3]
    assert one.tolist() == [0.5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("client,hour\n0,1\n", "has the columns client, hour; client and time_h are wanted"),
        ("client,time_h\n2,1\n", "line 2: client is 2; the fleet has 0 to 1"),
        ("client,time_h\n0,-1\n", "line 2: got '0','-1'; a client's number and an hour above 0"),
        ("client,time_h\n0,soon\n", "line 2: got '0','soon'"),
    ],
)
def test_what_is_wrong_with_a_trace_is_said(tmp_path, text: str, said: str) -> None:
    """Breaks if a trace that is none ends in a traceback, or as a stream without frames."""
    path = tmp_path / "arrivals.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"data\.stream\.trace") as caught:
        read_trace(path, 2)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(first=st.integers(0, 900), count=st.integers(0, 60), cut=st.integers(0, 60))
def test_a_frame_shows_the_same_row_however_it_is_asked_for(
    kind: str, first: int, count: int, cut: int
) -> None:
    """Breaks if what a frame shows depends on the frames that it is asked for with."""
    cut = min(cut, count)
    one = order(kind)
    whole = one.rows(one.turns(first, count), 3.0)
    halves = [
        order(kind).rows(order(kind).turns(*part), 3.0) for part in ((first, cut), (first + cut, count - cut))
    ]
    assert np.concatenate(halves).tolist() == whole.tolist()


def test_an_epoch_shows_every_row_once() -> None:
    """Breaks if iid is drawn with replacement: test-then-train would know rows from the first hour on."""
    iid = order("iid")
    rows = iid.rows(iid.turns(0, 120), 1.0)
    assert sorted(rows[:60]) == sorted(rows[60:]) == list(range(60))
    assert rows[:60].tolist() != rows[60:].tolist()


def test_a_parked_cameras_pictures_stay_by_the_law_it_states() -> None:
    """Breaks if the parked stream is not the heavy-tailed one that its results are for."""
    turn_F = order("parked").turns(0, 100_000)
    assert (np.diff(turn_F) >= 0).all() and (np.diff(turn_F) <= 1).all()
    stays = np.bincount(turn_F)[:-1]  # the last one is cut off
    assert stays.max() <= LONGEST_STAY
    for length in (1, 2, 4, 16):
        assert np.mean(stays >= length) == pytest.approx(1 / length, abs=0.02)
    assert stays[stays > 50].sum() / stays.sum() > 0.35


def test_classes_come_one_after_another() -> None:
    """Breaks if a class-incremental stream shows a class before its hour, or drops one that was there."""
    one = order("classes")
    seen = [set((one.rows(np.arange(300), hour) % 5).tolist()) for hour in (0.5, 1.0, 1.5, 4.5, 9.0)]
    assert [len(classes) for classes in seen] == [1, 1, 2, 5, 5]
    assert seen[0] == seen[1] < seen[2] < seen[3]


def test_a_long_tail_is_long() -> None:
    """Breaks if the first class is not a hundred times the last."""
    tail = Order("long_tail", np.arange(20_000) % 5, 5, 1)
    rows = tail.rows(np.arange(8_000), 1.0)
    counts = np.bincount(rows % 5, minlength=5)
    assert counts[0] / counts[4] == pytest.approx(100, rel=0.5)


def test_a_record_is_shown_once() -> None:
    """Breaks if a recorded stream begins again: its rows would have been trained on."""
    assert order("recorded").rows(np.arange(55, 65), 1.0).tolist() == [55, 56, 57, 58, 59]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.floats(0.01, 0.99), st.integers(0, 3), st.integers(0, 99))
def test_no_stored_window_shares_samples_with_one_held_out(
    count: int, share: float, overlap: int, seed: int
) -> None:
    """Breaks if near-future accuracy is measured on half of what was trained on."""
    part_R = parts(count, share, seed, overlap=overlap)
    held = np.flatnonzero(part_R == HELD_OUT)
    for row in np.flatnonzero(part_R == STORED):
        assert not len(held) or np.abs(held - row).min() > overlap
    assert (part_R[held] == HELD_OUT).all() and set(part_R.tolist()) <= {STORED, HELD_OUT, BETWEEN}
    apart = parts(count, share, seed)
    assert (apart == STORED).any() and abs((apart == HELD_OUT).sum() - share * count) <= 1


def test_chance_is_uniform_normal_and_of_the_number_alone() -> None:
    """Breaks if noise or labels are tied to the frames that they are drawn with, or are not what they are called."""
    number_F = np.arange(4_000)
    uniform = chance.shares(5, number_F)
    assert uniform[7] == chance.shares(5, np.array([7]))[0] != chance.shares(6, np.array([7]))[0]
    assert uniform.mean() == pytest.approx(0.5, abs=0.02) and 0 <= uniform.min() < uniform.max() < 1
    z_FN = chance.normal(5, number_F, 9)
    assert z_FN[3].tolist() == chance.normal(5, np.array([3]), 9)[0].tolist()
    assert z_FN.mean() == pytest.approx(0, abs=0.02) and z_FN.std() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(z_FN[:, 0], z_FN[:, 1])[0, 1]) < 0.06


def test_a_class_stays_for_stc_frames_and_no_row_is_shown_twice_in_an_epoch_of_its_class() -> None:
    """Breaks if runs are of other lengths, if a class is left out, or if a stream is not a function of the turn."""
    y_R = np.repeat(np.arange(4), [30, 20, 40, 30])
    order = Order("stc", y_R, 4, seed=5, stc=10)
    turn_F = order.turns(0, 160)
    row_F = order.rows(turn_F, 1.0)
    stays = y_R[row_F].reshape(16, 10)
    assert (stays == stays[:, :1]).all()
    assert (np.sort(stays[:, 0].reshape(4, 4)) == np.arange(4)).all()
    for label, rows in enumerate((30, 20, 40, 30)):
        own = row_F[y_R[row_F] == label]
        assert len(np.unique(own[: min(rows, 40)])) == min(rows, 40)
    assert (order.rows(order.turns(37, 25), 9.0) == row_F[37:62]).all()
