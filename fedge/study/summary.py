"""study.json: what each arm brings, for whom, at what cost, and how sure that is. From the cells' results alone."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedge.coordinator.metrics import spread
from fedge.coordinator.paired import mean, worst_decile
from fedge.protocol.hurt import CHANCE, chance_of_losing
from fedge.results.run_folder import SUMMARY, read_reports
from fedge.seeding import derive_seed
from fedge.study.cells import Cell
from fedge.study.front import dominated_by, front
from fedge.study.outcome import Outcome, outcomes
from fedge.study.paired import matrix, probability_of_improvement, two_way_interval
from fedge.study.stream.near_future import stream_figures
from fedge.study.study import FACTORY, TOLD, Study
from fedge.yardsticks.settings import left_out

COSTS = ("macs", "energy_j", "time_s", "bytes")
BRINGS = ("accuracy", "worst_decile")

Run = tuple[int, int]  # world, seed


@dataclass(frozen=True)
class CellResult:
    """One finished cell: its clients' outcomes, and what it cost the fleet. unseen: the same of the clients that nobody
    learns from, where there are any; the rest is without them. stream: of summary.json."""

    cell: Cell
    outcomes: Sequence[Outcome]
    cost: Mapping[str, float]
    unseen: "CellResult | None" = None
    stream: Mapping[str, Any] | None = None

    @property
    def run(self) -> Run:
        return self.cell.world, self.cell.seed


def read_cell(cell: Cell, out: Path, select: str) -> CellResult:
    folder = cell.folder(out)
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    found, later = outcomes(read_reports(folder), select), summary.get("unseen")
    left = summary["egress"]["bytes"] - (later["bytes"] if later else 0)
    seen = [outcome for outcome in found if not outcome.unseen]
    newcomers = [outcome for outcome in found if outcome.unseen]
    unseen = None if later is None else CellResult(cell, newcomers, _cost(later, later["bytes"]))
    return CellResult(cell, seen, _cost(summary, left), unseen, summary.get("stream"))


def _cost(figures: Mapping[str, Any], left_bytes: int) -> dict[str, float]:
    """Of a whole run, or of what stands under `unseen`; left_bytes: of the reports."""
    return {
        "macs": figures["macs"]["done"],
        "energy_j": figures["energy_j"],
        "time_s": figures["time_s"],
        "bytes": left_bytes + figures.get("weights_bytes", 0),
    }


def summarise(name: str, study: Study, results: Sequence[CellResult]) -> dict[str, Any]:
    """The content of study.json. Arms without a finished cell are left out."""
    by_arm: dict[str, list[CellResult]] = {}
    for result in results:
        by_arm.setdefault(result.cell.arm, []).append(result)
    groups = _compared(study, list(by_arm))
    arms = {arm: _against(study, arm, by_arm) for group in groups for arm in group}
    fronts = _fronts(arms, groups)
    return {
        "study": name,
        "question": study.question,
        "scenario": study.scenario,
        "baseline": study.baseline,
        "select": study.select,
        "worlds": sorted({result.cell.world for result in results}),
        "seeds": sorted({result.cell.seed for result in results}),
        "arms": arms,
        "front": fronts["accuracy"]["macs"]["arms"],
        "fronts": fronts,
    }


def _compared(study: Study, arms: Sequence[str]) -> list[list[str]]:
    """The arms that are held against each other: all of them, or those of one point of the grid."""
    if not study.by_point:
        return [list(arms)]
    points = dict.fromkeys(map(study.point, arms))
    return [[arm for arm in arms if study.point(arm) == point] for point in points]


def _against(study: Study, arm: str, by_arm: Mapping[str, Sequence[CellResult]]) -> dict[str, Any]:
    """An arm's figures, held against its baseline."""
    found, baseline = by_arm[arm], study.baseline_of(arm)
    rivals = by_arm.get(baseline, ())
    base = {result.run: accuracies(result) for result in rivals}
    return {
        **({"baseline": baseline} if study.by_point else {}),
        **_arm(arm, found, baseline, base),
        **_unseen(arm, found, baseline, base),
        **stream_figures(arm, found, rivals),
    }


def accuracies(result: CellResult) -> dict[int, float]:
    """Of every client, the unseen ones too."""
    later = result.unseen.outcomes if result.unseen else ()
    return {outcome.client: outcome.accuracy for outcome in (*result.outcomes, *later)}


def _unseen(
    arm: str, results: Sequence[CellResult], baseline: str, base: Mapping[Run, Mapping[int, float]]
) -> dict[str, Any]:
    """`{"unseen": ...}`: accuracy, gain and cost of the clients that nobody learns from, in their one round."""
    later = [result.unseen for result in results if result.unseen]
    figures = _arm(arm, later, baseline, base) if later else {}
    shown = ("accuracy", "error", "served", "gain", "cost")
    return {"unseen": {key: figures[key] for key in shown if key in figures}} if later else {}


def gains_of(result: CellResult, baseline: str, base: Mapping[Run, Mapping[int, float]]) -> dict[int, float]:
    """Client -> accuracy above the baseline's; without clients that the baseline does not have in that run."""
    if baseline in (FACTORY, TOLD):
        against = {o.client: o.factory if baseline == FACTORY else o.told for o in result.outcomes}
        return {
            o.client: o.accuracy - less for o in result.outcomes if (less := against[o.client]) is not None
        }
    there = base.get(result.run, {})
    return {o.client: o.accuracy - there[o.client] for o in result.outcomes if o.client in there}


def _arm(
    arm: str, results: Sequence[CellResult], baseline: str, base: Mapping[Run, Mapping[int, float]]
) -> dict[str, Any]:
    pooled = [outcome for result in results for outcome in result.outcomes]
    runs = {run: index for index, run in enumerate(sorted(result.run for result in results))}
    gains = {
        (client, runs[result.run]): gain
        for result in results
        for client, gain in gains_of(result, baseline, base).items()
    }
    cost = {name: mean([result.cost[name] for result in results]) for name in COSTS}
    gain = _gain(list(gains.values()), gains, arm) | {"hurt": hurt(pooled)}
    return {
        "accuracy": {
            "factory": mean([outcome.factory for outcome in pooled]) if pooled else None,
            "told": _mean([outcome.told for outcome in pooled]),
            **spread([outcome.accuracy for outcome in pooled]),
        },
        **_errors(pooled),
        **_served(pooled),
        "gain": gain,
        "cost": cost,
        "gain_per": {
            name: gain["mean"] / amount if amount and gain["mean"] is not None else None
            for name, amount in cost.items()
        },
        "factory_model": results[0].cell.factory_id,
        **_left_out(results[0].cell),
        "cells": [result.cell.id for result in results],
    }


def _left_out(cell: Cell) -> dict[str, Any]:
    """Of a yardstick: its name, and the scenario's settings that play no part in it."""
    return {"yardstick": cell.yardstick, "no_part": left_out(cell.scenario)} if cell.yardstick else {}


def _mean(values: Sequence[float | None]) -> float | None:
    """Of those that there are; None without any."""
    there = [value for value in values if value is not None]
    return mean(there) if there else None


def _errors(pooled: Sequence[Outcome]) -> dict[str, Any]:
    """`{"error": ...}`: mean absolute errors over clients and runs, where numbers are asked for."""
    tested = [o for o in pooled if o.error_sum is not None]
    if not tested:
        return {}
    sums = {"factory": [o.factory_error_sum for o in tested], "mean": [o.error_sum for o in tested]}
    return {
        "error": {
            name: _mean(
                [None if total is None else total / o.count for total, o in zip(of, tested, strict=True)]
            )
            for name, of in sums.items()
        }
    }


def _served(pooled: Sequence[Outcome]) -> dict[str, Any]:
    """`{"served": {"factory": ...}}`: the share of clients and runs that keep the factory model, where any may."""
    said = [outcome.served for outcome in pooled if outcome.served is not None]
    return {"served": {"factory": said.count(0) / len(said)}} if said else {}


def _gain(values: Sequence[float], gains: Mapping[tuple[int, int], float], arm: str) -> dict[str, Any]:
    if not values:
        return dict.fromkeys(("mean", "interval", "median", "worst_decile", "improved"))
    return {
        "mean": mean(values),
        "interval": two_way_interval(matrix(gains), derive_seed(0, "study", arm)),
        "median": statistics.median(values),
        "worst_decile": worst_decile(values),
        "improved": probability_of_improvement(values),
    }


def hurt(pooled: Sequence[Outcome]) -> dict[str, float | None]:
    """Shares of clients and runs whose network is worse than the factory model on their own test rows: by a row or
    more; and by so many that chance alone does it in less than 5 % of cases (McNemar, exact, one-sided)."""
    if not pooled:
        return {"any": None, "beyond_chance": None}
    worse = [outcome for outcome in pooled if outcome.is_worse]
    beyond = [outcome for outcome in worse if chance_of_losing(outcome.gained, outcome.lost) < CHANCE]
    return {"any": len(worse) / len(pooled), "beyond_chance": len(beyond) / len(pooled)}


def _fronts(
    arms: Mapping[str, Mapping[str, Any]], groups: Sequence[Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """For what an arm brings and each cost: the arms that none of its group dominates, and who dominates the others."""
    found: dict[str, dict[str, Any]] = {}
    for bring in BRINGS:
        key = "mean" if bring == "accuracy" else bring
        for cost in COSTS:
            entry: dict[str, Any] = {"arms": [], "dominated": {}}
            for group in groups:
                told = [arm for arm in group if arms[arm]["accuracy"]["mean"] is not None]
                brings = {arm: arms[arm]["accuracy"][key] for arm in told}
                takes = {arm: arms[arm]["cost"][cost] for arm in told}
                best = front(brings, takes)
                entry["arms"] += best
                entry["dominated"] |= {
                    arm: dominated_by(arm, brings, takes) for arm in told if arm not in best
                }
            found.setdefault(bring, {})[cost] = entry
    return found
