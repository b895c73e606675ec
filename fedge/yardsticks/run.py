"""A yardstick over a scenario's shards, splits and factory model.

    for each round:  every client k trains what it is sent, w^k
                     w = sum_k n_k w^k / sum_k n_k            over the tensors that are shared, n_k its training samples

    after the last, for each unseen client (schedule.unseen):  w serves it, as it stands or trained further, and stays

It writes reports.jsonl as a run does, and a summary with `weights_bytes`: what its weights would have moved, down and
up. Methods, faults and limits of the scenario play no part (fedge.yardsticks.settings), and `no_part` says which of
them it has; virtual time and energy are of dense training and of links that carry the weights.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedge.cache import hold, let_go
from fedge.console.observer import Observer
from fedge.coordinator.metrics import accuracy, macs
from fedge.coordinator.paired import gain, hurt
from fedge.errors import RunError
from fedge.prepare import prepare
from fedge.protocol import DeviceFailure
from fedge.results.run_folder import SCENARIO, SUMMARY
from fedge.results.write import replace_text
from fedge.scenario.file import scenario_toml
from fedge.scenario.schema import Scenario
from fedge.seeding import derive_seed
from fedge.yardsticks.fleet import Fleet
from fedge.yardsticks.methods import YARDSTICKS
from fedge.yardsticks.settings import left_out

Row = Mapping[str, Any]


def run_yardstick(name: str, scenario: Scenario, out: Path, observer: Observer) -> None:
    """Run it to its end and write its results into `out`; begun again from the start where it was killed.

    UserError where it cannot be of this scenario, RunError where a client diverged.
    """
    prepared = prepare(scenario)
    hold(Path(prepared.folder))
    try:
        fleet = Fleet(YARDSTICKS[name], scenario, prepared)
        _run(name, fleet, scenario, out, observer)
    except DeviceFailure as failure:
        raise RunError(f"{name}: {failure}") from None
    finally:
        let_go()


def _run(name: str, fleet: Fleet, scenario: Scenario, out: Path, observer: Observer) -> None:
    rows: list[Row] = []
    times_s = []
    observer.run_started(scenario)
    for round in range(1, scenario.rounds + 1):
        observer.round_started(round, len(fleet.clients))
        reports = fleet.round(round)
        for row in reports:
            observer.report_arrived(row)
        rows += reports
        times_s.append(max(row["time_s"] for row in reports))
        observer.round_finished({"round": round, "accuracy": accuracy(reports)})
    newcomers = fleet.welcome(scenario.all_rounds) if scenario.unseen else []
    if newcomers:
        observer.round_finished(
            {"round": scenario.all_rounds, "accuracy": accuracy(newcomers), "unseen": True}
        )
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / SCENARIO, scenario_toml(scenario))
    replace_text(out / "reports.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, *newcomers]))
    summary = _summary(name, scenario, rows, times_s) | {"weights_bytes": fleet.moved_bytes}
    if scenario.unseen:
        times_s = [max((row["time_s"] for row in newcomers), default=0.0)]
        late = _outcome(scenario, newcomers, newcomers, times_s, clients=scenario.unseen)
        moved = {"bytes": 0, "weights_bytes": fleet.welcome_bytes}
        summary["unseen"] = {"clients": scenario.unseen, **late, **moved}
    replace_text(out / SUMMARY, json.dumps(summary, indent=2) + "\n")
    observer.run_finished(summary)


def _summary(name: str, scenario: Scenario, rows: Sequence[Row], times_s: list[float]) -> dict[str, Any]:
    last = [row for row in rows if row["round"] == scenario.rounds]
    return {
        "scenario": scenario.name,
        "yardstick": name,
        "no_part": left_out(scenario),
        "seed": scenario.seed,
        "rounds": scenario.rounds,
        "clients": scenario.clients,
        **_outcome(scenario, last, rows, times_s, clients=scenario.clients - scenario.unseen),
        "egress": {"messages": 0, "bytes": 0, "fields": []},
    }


def _outcome(
    scenario: Scenario, last: Sequence[Row], rows: Sequence[Row], times_s: Sequence[float], *, clients: int
) -> dict[str, Any]:
    """What the last reports of so many clients say, and what all of theirs have cost."""
    return {
        "accuracy": accuracy(last),
        "gain": gain(last, seed=derive_seed(scenario.seed, "interval")),
        "hurt": hurt(last),
        "macs": macs(rows),
        "time_s": sum(times_s),
        "energy_j": sum(row["energy_j"] for row in rows),
        "failures": 0,
        "never_reported": clients - len(last),
    }
