"""Who is there, and who goes away."""

import itertools

import pytest
from pydantic import ValidationError

from fedge.errors import UserError
from fedge.fleet.availability import Presence
from fedge.scenario.fleet import Availability

CLIENTS = range(400)


def share_online(presence: Presence, round: int, tie: float | None = None) -> float:
    return sum(presence.is_online(client, round, tie) for client in CLIENTS) / len(CLIENTS)


def test_always_means_always():
    """The default fleet would miss devices."""
    presence = Presence(Availability(), seed=1)
    assert share_online(presence, 1) == 1.0
    assert all(presence.dropout_point(client, 1) is None for client in CLIENTS)


@pytest.mark.parametrize("persistence", [0.0, 0.5])
def test_the_day_swings_by_its_factor(persistence):
    """Day and night would be alike, or turned round."""
    settings = Availability(kind="markov", share=0.4, swing=4.0, peak_h=2.0, persistence=persistence)
    presence = Presence(settings, seed=1)
    by_hour = [share_online(presence, round) for round in range(1, 49)]  # round r begins at hour r - 1
    night, noon = by_hour[26 + (persistence > 0)], by_hour[38 + (persistence > 0)]
    assert night == pytest.approx(0.8, abs=0.07) and noon == pytest.approx(0.2, abs=0.07)


def test_without_swing_and_with_share_one_markov_is_always():
    """The limiting case of the formula would not hold."""
    presence = Presence(Availability(kind="markov", share=1.0, swing=1.0), seed=1)
    assert [share_online(presence, round) for round in (1, 13, 25)] == [1.0] * 3


def test_persistent_devices_change_their_state_less_often():
    """Persistence would have no effect."""

    def changes(persistence: float) -> int:
        presence = Presence(Availability(kind="markov", swing=1.0, persistence=persistence), seed=1)
        states = [[presence.is_online(client, round) for round in range(1, 25)] for client in range(100)]
        return sum(a != b for row in states for a, b in itertools.pairwise(row))

    assert changes(0.9) < 0.3 * changes(0.0)


def test_a_state_is_a_function_of_seed_client_and_round():
    """A resumed run, which asks for round 9 first, would meet other devices."""
    settings = Availability(kind="markov", persistence=0.7, peak_spread_h=6.0)
    straight = Presence(settings, seed=1)
    history = [[straight.is_online(client, round) for client in CLIENTS] for round in range(1, 10)]
    resumed = Presence(settings, seed=1)
    assert [resumed.is_online(client, 9) for client in CLIENTS] == history[8]
    assert [resumed.is_online(client, 4) for client in CLIENTS] == history[3]
    assert [Presence(settings, seed=2).is_online(client, 9) for client in CLIENTS] != history[8]


def test_availability_tied_to_the_data_moves_the_peak():
    """Correlated and independent availability would be the same experiment."""
    settings = Availability(kind="markov", peak_h=2.0, persistence=0.0, tied_to="data")
    presence = Presence(settings, seed=1)
    at_two = 3  # round 3 begins at 02:00
    assert share_online(presence, at_two, tie=0.0) > 3 * share_online(presence, at_two, tie=1.0)
    with pytest.raises(UserError, match="only a device"):
        presence.is_online(0, 1)


def test_dropout_is_met_and_says_when():
    """Devices would drop out at another rate, or all at the start."""
    presence = Presence(Availability(dropout=0.3), seed=1)
    points = [presence.dropout_point(client, round) for client in CLIENTS for round in (1, 2, 3)]
    gone = [point for point in points if point is not None]
    assert len(gone) / len(points) == pytest.approx(0.3, abs=0.04)
    assert 0.4 < sum(gone) / len(gone) < 0.6
    assert all(Presence(Availability(dropout=1.0), seed=1).dropout_point(c, 1) is not None for c in CLIENTS)


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("id,start,end\na,0,3600\nb,3600,7200\na,7200,10800\n")
    return str(path)


def test_a_trace_is_followed_and_repeated(trace):
    """A user's own trace would not be what runs."""
    presence = Presence(Availability(kind="trace", path=trace), seed=1)
    # Period 3 h; client 0 follows a, client 1 b, client 2 a again.
    assert [presence.is_online(0, round) for round in range(1, 7)] == [True, False, True] * 2
    assert [presence.is_online(1, round) for round in range(1, 7)] == [False, True, False] * 2
    assert [presence.is_online(2, round) for round in range(1, 4)] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line"),
        ("id,start,end\n", "at least one"),
        ("id,start,end\na,5,1\n", "line 2"),
        ("id,start,end\na,0,1\nb,zero,1\n", "line 3"),
        ("id,start,end\na,0\n", "line 2"),
        ("id,start,end\na,0,inf\n", "line 2"),
    ],
)
def test_a_broken_trace_is_one_clear_line(text, message, tmp_path):
    """The user would have to find the broken line."""
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        Presence(Availability(kind="trace", path=str(path)), seed=1)


def test_a_missing_trace_is_one_clear_line(tmp_path):
    """The user would see a FileNotFoundError."""
    with pytest.raises(UserError, match="cannot be read"):
        Presence(Availability(kind="trace", path=str(tmp_path / "no.csv")), seed=1)


@pytest.mark.parametrize(
    "section", [{"kind": "trace"}, {"path": "x.csv"}, {"share": 0.0}, {"dropout": 1.1}, {"peak_h": 25.0}]
)
def test_an_impossible_section_is_refused(section):
    """A scenario would run with an availability that cannot be what was meant."""
    with pytest.raises(ValidationError):
        Availability.model_validate(section)
