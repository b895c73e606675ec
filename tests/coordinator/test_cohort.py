"""Fleets under faults, dropout, selection and low batteries: defined outcomes, finite figures, nothing lost."""

from collections import Counter

import pytest

import fedge
from fedge.scenario.fleet import Fault

EXPECTED = {
    Fault.CRASH: "host_died",
    Fault.HANG: "deadline_exceeded",
    Fault.CORRUPT_REPORT: "corrupt_report",
    Fault.NAN: "diverged",
    Fault.OUT_OF_MEMORY: "out_of_memory",
    Fault.LOST_MESSAGE: "no_reply",
    Fault.DUPLICATE: "ok",
}
PLAIN = ("training.instance_filter.kind=none", "training.error_maps.keep=1.0", "training.pruning.level=0")


def test_every_fault_has_its_status_and_touches_nobody_else(small, tmp_path) -> None:
    """Breaks if a fault is reported as another, spreads to other clients, or makes a figure infinite."""
    faults = [f"faults.{fault.value}.at=[[1, {client}]]" for client, fault in enumerate(Fault)]
    counts = ["fleet.0.count=3", "fleet.1.count=3", "fleet.2.count=2"]
    result = fedge.run(small(*PLAIN, *faults, *counts), tmp_path / "faulty")
    undisturbed = fedge.run(small(*PLAIN, *counts), tmp_path / "whole")
    statuses = {row["client"]: row["status"] for row in result.reports() if row["round"] == 1}
    for client, fault in enumerate(Fault):
        assert statuses[client] == EXPECTED[fault], fault
    assert statuses[7] == "ok"
    assert [row["status"] for row in result.reports() if row["round"] == 2] == ["ok"] * 8
    untouched = (6, 7)  # the duplicate and the client without a fault
    for client in untouched:
        ours, theirs = (
            [row for row in run.reports(timing=False) if row["client"] == client]
            for run in (result, undisturbed)
        )
        assert ours == theirs
    assert result.summary["failures"] == 6


def test_a_lost_message_is_of_work_that_was_done(small, finished, tmp_path) -> None:
    """Breaks if a device whose report was lost forgets the round: its next report must be the undisturbed one's."""
    lost = fedge.run(small(*PLAIN, "faults.lost_message.at=[[1, 0]]"), tmp_path / "lost")
    last = [
        [row for row in run.reports(timing=False) if row["round"] == 2 and row["client"] == 0]
        for run in (lost, finished(*PLAIN))
    ]
    assert last[0] == last[1]


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_dropout_leaves_finite_figures(small, tmp_path, share: float) -> None:
    """Breaks if a round that some or all devices leave crashes the run or sums up nonsense."""
    result = fedge.run(small(*PLAIN, f"availability.dropout={share}"), tmp_path)
    statuses = Counter(row["status"] for row in result.reports())
    assert set(statuses) <= {"ok", "dropped_out"}
    assert statuses["dropped_out"] == 12 if share == 1 else 0 < statuses["dropped_out"] < 12
    assert result.summary["failures"] == statuses["dropped_out"]
    assert result.summary["macs"]["saved"] == 0.0
    if share == 1:
        assert result.summary["accuracy"]["mean"] is None


def test_over_selection_counts_the_first_and_calls_the_others_late(small, tmp_path) -> None:
    """Breaks if more reports count than were wanted, or if they are not the fastest in virtual time."""
    selection = ["selection.clients_per_round=3", "selection.over_selection=1.6"]
    result = fedge.run(small(*PLAIN, *selection), tmp_path)
    for round in (1, 2):
        rows = [row for row in result.reports() if row["round"] == round]
        ok, late = ([row["time_s"] for row in rows if row["status"] == status] for status in ("ok", "late"))
        assert (len(ok), len(late)) == (3, 2)
        assert max(ok) <= min(late)


def test_a_deadline_makes_the_slow_late_and_never_waits(small, finished, tmp_path) -> None:
    """Breaks if the virtual deadline is not kept, or if the simulation itself waits for it."""
    times_s = [row["time_s"] for row in finished(*PLAIN).reports() if row["round"] == 1]
    deadline_s = sorted(times_s)[2]  # of six
    result = fedge.run(small(*PLAIN, f"selection.deadline_s={deadline_s}"), tmp_path / "bound")
    rows = [row for row in result.reports() if row["round"] == 1]
    assert all((row["status"] == "ok") == (row["time_s"] <= deadline_s) for row in rows)
    assert sorted(row["status"] for row in rows) == ["late"] * 3 + ["ok"] * 3


def test_offline_devices_are_not_asked(small, tmp_path) -> None:
    """Breaks if a device that is away is sent a plan, or if an empty round ends the run."""
    away = ["availability.kind=markov", "availability.share=0.3", "rounds=4"]
    result = fedge.run(small(*PLAIN, *away), tmp_path)
    assert len(result.reports()) < 24
    assert {row["status"] for row in result.reports()} <= {"ok"}


def test_availability_tied_to_data_is_answered_by_the_device(small, tmp_path) -> None:
    """Breaks if the coordinator had to know a device's data to know whether it is online."""
    away = ["availability.kind=markov", "availability.share=0.3", "availability.tied_to=data", "rounds=3"]
    result = fedge.run(small(*PLAIN, *away), tmp_path)
    assert len(result.reports()) == 18
    assert {row["status"] for row in result.reports()} == {"ok", "offline"}


def test_a_low_battery_stays_at_home_and_comes_back_charged(small, tmp_path) -> None:
    """Breaks if batteries neither run down nor recharge."""
    phones = ["fleet.0.device=pixel-6", "energy.start=0.2", "energy.admit=0.3", "rounds=5"]
    clock = [
        "availability.start_h=12",
        "availability.round_every_h=6",
    ]  # noon, 18 h, midnight (plugged in) ...
    result = fedge.run(small(*PLAIN, *phones, *clock), tmp_path)
    phone = [row["status"] for row in result.reports() if row["client"] == 0]
    assert phone[:2] == ["battery_low", "battery_low"]
    assert phone[2:] == ["ok"] * 3
    assert all(row["status"] == "ok" for row in result.reports() if row["client"] >= 2)


def test_memory_that_fails_ends_the_run_with_its_line(small, tmp_path) -> None:
    """Breaks if limits.memory = "fail" lets a run go on without a device that is too small."""
    from fedge.errors import RunError

    with pytest.raises(RunError, match=r"client 0: the plan does not fit device 'stm32f746'"):
        fedge.run(small(*PLAIN, "fleet.0.device=stm32f746", "limits.memory=fail"), tmp_path)
