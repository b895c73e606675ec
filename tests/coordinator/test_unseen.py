"""`schedule.unseen`: clients that nobody learns from, and the one round that they get after all others."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fedge
from fedge.coordinator.cohort import Fleet
from fedge.device.budget.fate import is_online
from fedge.device.simulated import Simulated
from fedge.errors import UserError
from fedge.fleet.newcomers import taking_part, unseen_clients
from fedge.launch import RunResult
from fedge.protocol import TIMING_FIELDS
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario
from fedge.watch.series import round_series

pytestmark = pytest.mark.long

Make = Callable[..., Scenario]
Finished = Callable[..., RunResult]
SHARE = "schedule.unseen=0.3"  # two of six


def without(row: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in (*fields, *TIMING_FIELDS)}


def test_who_is_unseen_is_of_the_world(small: Make) -> None:
    """Breaks if arms or seeds of one study compare other clients, or if a world does not choose anew."""
    found = {
        (world, seed): unseen_clients(small(SHARE, f"data.seed={world}", f"seed={seed}", "client=dense"))
        for world in range(8)
        for seed in (1, 2)
    }
    assert all(len(clients) == 2 and clients < set(range(6)) for clients in found.values())
    assert all(found[world, 1] == found[world, 2] for world in range(8))
    assert len(set(found.values())) > 3
    scenario = small(SHARE, "seed=1", "data.seed=3")
    seen, unseen = taking_part(scenario, 1), taking_part(scenario, scenario.rounds + 1)
    assert seen == taking_part(scenario, scenario.rounds) and set(unseen) == found[3, 1]
    assert sorted([*seen, *unseen]) == list(range(6))
    assert unseen_clients(small()) == frozenset() and small().all_rounds == small().rounds


def test_one_round_after_all_others(small: Make, finished: Finished) -> None:
    """Breaks if an unseen client takes part before, if the others do anything else for its sake, or if its one round is
    another than that of a device that joins so late."""
    run = finished(SHARE)
    unseen = unseen_clients(small(SHARE))
    rows = run.reports()
    assert {row["client"] for row in rows if row["round"] == 3} == unseen
    assert all((row["round"] == 3) == (row["client"] in unseen) == ("unseen" in row) for row in rows)
    whole = [row for row in finished().reports() if row["client"] not in unseen]
    assert [without(row) for row in rows if row["round"] < 3] == [without(row) for row in whole]
    missed = ", ".join(f"[{round}, {client}]" for round in (1, 2) for client in sorted(unseen))
    joined = finished("rounds=3", f"faults.out_of_memory.at=[{missed}]").reports()
    late = [row for row in joined if row["round"] == 3 and row["client"] in unseen]
    assert [without(row, "unseen") for row in rows if row["round"] == 3] == [without(row) for row in late]
    assert all(row["status"] == "ok" and row["parameters"] < row["parameters_dense"] for row in late)


def test_figures_of_the_others_are_without_them(small: Make, finished: Finished) -> None:
    """Breaks if a mean, a cost or a count of those that took part holds an unseen client."""
    run = finished(SHARE)
    last = [row for row in run.reports() if row["round"] == 2]
    late = [row for row in run.reports() if row["round"] == 3]
    summary = run.summary
    for figures, rows in ((summary, last), (summary["unseen"], late)):
        accuracy = [row["test_correct"] / row["test_count"] for row in rows]
        assert figures["accuracy"]["mean"] == pytest.approx(sum(accuracy) / len(rows))
        assert figures["accuracy"]["clients"] == len(rows)
        assert figures["never_reported"] == figures["failures"] == 0
    assert summary["unseen"]["clients"] == 2 and summary["clients"] == 6
    assert summary["unseen"]["macs"]["done"] == sum(row["macs_done"] for row in late)
    assert (
        summary["macs"]["done"]
        == sum(row["macs_done"] for row in run.reports()) - summary["unseen"]["macs"]["done"]
    )
    assert summary["egress"]["messages"] == 4 * 2 + 2
    assert 0 < summary["unseen"]["bytes"] < summary["egress"]["bytes"] / 4
    assert "unseen" not in finished().summary


def test_neither_selection_nor_deadline_nor_availability_keeps_them_away(small: Make) -> None:
    """Breaks if what a round may leave out leaves out a client that has no other round."""
    away = [
        "availability={kind='markov', share=0.01, swing=1}",
        "selection={clients_per_round=1, deadline_s=1e-6}",
    ]
    scenario = small(SHARE, *away)
    fleet = Fleet(scenario)
    asked = fleet.ask(3)
    assert sorted(asked.plans) == sorted(unseen_clients(scenario)) and asked.wanted == asked.fleet == 2
    rows = [{"client": client, "status": "ok", "time_s": 50.0} for client in asked.plans]
    assert fleet.close(asked, rows).counted == tuple(sorted(asked.plans))
    assert len(fleet.ask(1).plans) <= 1 and fleet.ask(1).fleet == 4
    tied = small(SHARE, "availability={kind='markov', share=0.01, swing=1, tied_to='data'}")
    assert sorted(Fleet(tied).ask(3).plans) == sorted(unseen_clients(tied))
    devices = [Simulated.of(tied, client) for client in unseen_clients(tied)]
    assert all(is_online(device, 3, tie=0.5) for device in devices)
    assert not all(is_online(device, round, tie=0.5) for device in devices for round in (1, 2))


def test_cut_in_their_round_it_ends_alike_and_cannot_grow(
    small: Make, finished: Finished, tmp_path: Path
) -> None:
    """Breaks if their round is lost on resume, or if rounds are added behind it in which the others would go on."""
    out = tmp_path / "cut"
    whole = finished(SHARE)
    shutil.copytree(whole.out, out)
    (out / "checkpoint.json").write_text((out / "checkpoint.previous.json").read_text())
    (out / "summary.json").unlink()
    resumed = fedge.run(small(SHARE), out, resume=True)
    assert resumed.reports(timing=False) == whole.reports(timing=False)
    assert resumed.summary["unseen"] == whole.summary["unseen"]
    with pytest.raises(
        UserError, match=r"round 3 of 3\), of which the last is that of clients nobody learns from"
    ):
        fedge.run(small(SHARE, "rounds=4"), out, resume=True)


def test_somebody_has_to_take_part() -> None:
    """Breaks if a run without anybody in it ends well."""
    one = ["fleet.0.count=1", "fleet.1.count=1", "fleet.2.count=1"]
    with pytest.raises(UserError, match=r"unseen is 0.9, which leaves none of 3 clients to take part"):
        load_scenario("quickstart", [*one, "schedule.unseen=0.9"])
    assert load_scenario("quickstart", [*one, "schedule.unseen=0.01"]).unseen == 1


def test_a_tracker_has_names_of_their_own_for_them() -> None:
    """Breaks if the fleet's curve ends at another fleet's figure."""
    figures = {"round": 3, "accuracy": {"mean": 0.5}, "failures": {}, "unseen": True}
    assert round_series(figures) == {"unseen/fleet/accuracy_mean": 0.5}
