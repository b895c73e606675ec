"""What a fleet's stream came to, from counts that devices sent."""

from typing import Any

import pytest

from fedge.coordinator.streams import round_figures, run_figures
from fedge.protocol.agreement import counts_agree
from fedge.protocol.report import STREAM_FIELDS

Row = dict[str, Any]


def row(**counts: int) -> Row:
    held = dict.fromkeys(STREAM_FIELDS, 0) | {
        "arrived": 20, "labelled": 16, "stored": 10, "trained": 5, "ttt_correct": 6, "ttt_count": 12,
        "blind_correct": 3, "future_correct": 3, "future_count": 4, "past_correct": 1, "past_count": 2,
    }  # fmt: skip
    return {"status": "ok", **held, **counts}


@pytest.fixture
def scenario(small):
    return small(
        "data.stream.rate_per_h=60",
        "availability.round_every_h=2.0",
        "data.stream.drift=[{what='concept', at_h=5.0}]",
    )


def test_a_round_sums_clients_and_leaves_out_who_did_not_report(scenario) -> None:
    """Breaks if a mean of shares stands for the share of sums, or if a failed client's numbers count."""
    rows = [
        row(),
        row(ttt_correct=0, ttt_count=4),
        {"status": "offline"},
        row(arrived=99) | {"status": "late"},
    ]
    stream = round_figures(scenario, 3, rows)["stream"]
    assert stream["hour"] == 6.0 and stream["arrived"] == 40 and stream["stored"] == 20
    assert stream["ttt"] == 6 / 16 and stream["blind"] == 6 / 16 and stream["future"] == 0.75
    assert stream["trained_share"] == 0.25


def test_a_run_tells_what_was_forgotten_and_when_a_drift_was_made_good(scenario) -> None:
    """Breaks if forgetting is measured from the first hour instead of the best, or recovery from the wrong one."""
    past, future = [4, 8, 6, 6, 5], [16, 16, 8, 12, 16]
    rounds = [
        round_figures(
            scenario, number, [row(past_correct=p, past_count=10, future_correct=f, future_count=20)]
        )
        for number, (p, f) in enumerate(zip(past, future, strict=True), start=1)
    ]
    stream = run_figures(scenario, rounds)["stream"]
    assert stream["forgetting"] == pytest.approx(0.3) and stream["backward"] == pytest.approx(0.1)
    assert stream["anytime"] == pytest.approx(0.68)
    (drift,) = stream["drift"]
    assert drift.pop("after") == [(1.0, 0.4), (3.0, 0.6), (5.0, 0.8)]
    assert drift == {
        "what": "concept",
        "kind": "sudden",
        "at_h": 5.0,
        "before": 0.8,
        "worst": 0.4,
        "recovered_h": 5.0,
    }
    assert "stored" not in stream


def test_what_nobody_could_be_asked_is_none(scenario) -> None:
    """Breaks if a round without frames divides by zero, or is counted as a round of wrong answers."""
    empty = row(**dict.fromkeys(STREAM_FIELDS, 0))
    rounds = [round_figures(scenario, 1, [empty]), round_figures(scenario, 2, [])]
    assert rounds[0]["stream"]["future"] is None
    stream = run_figures(scenario, rounds)["stream"]
    assert stream["anytime"] is stream["forgetting"] is stream["drift"][0]["recovered_h"] is None


def test_alarms_are_summed_where_somebody_looks(scenario, small) -> None:
    """Breaks if what devices detected is in single reports alone, or is said where nobody looks for it."""
    looking = small("data.stream.rate_per_h=60", "schedule.detector.then=regrow")
    rounds = [
        round_figures(looking, 1, [row(alarms=0), row(alarms=2)]),
        round_figures(looking, 2, [row(alarms=1), {"status": "offline"}]),
    ]
    assert [figures["stream"]["alarms"] for figures in rounds] == [2, 1]
    assert run_figures(looking, rounds)["stream"]["alarms"] == 3
    assert "alarms" not in round_figures(scenario, 1, [row()])["stream"]
    assert counts_agree(row(alarms=1), frames=10**6, detecting=True)
    assert not counts_agree(row(alarms=1), frames=10**6)
    assert not counts_agree(row(), frames=10**6, detecting=True)


def test_without_a_stream_there_is_nothing(small) -> None:
    """Breaks if summaries of plain scenarios change."""
    assert round_figures(small(), 1, [{"status": "ok"}]) == run_figures(small(), []) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttt_correct": 13},
        {"blind_correct": 13},
        {"ttt_count": 17},
        {"labelled": 21},
        {"trained": 11},
        {"past_correct": 3},
    ],
)
def test_counts_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    """Breaks if a corrupt report moves the fleet's figures."""
    assert counts_agree(row(), frames=10**6)
    assert not counts_agree(row(**wrong), frames=10**6)
    assert not counts_agree(row(), frames=None)
    assert not counts_agree({"status": "ok"}, frames=10**6)
    assert counts_agree({"status": "ok"}, frames=None)
