"""The page of the ADaPT benchmark: tables of its finished cells, preset by preset.

All differences are paired: same network, subset, level and seed. `±` is the standard deviation over seeds of a
cell, or over (network, subset, level, seed) of a mean; `between seeds` is that of one place's difference, from the
mean of the places' variances.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import mean, stdev, variance
from typing import Any

from benchmarks.adapt.controls import CONTROLS
from benchmarks.adapt.grid import PRESETS, Preset
from benchmarks.measure.results import Row
from benchmarks.measure.table import markdown, mean_std

Rows = list[Row]
Place = tuple[str, str, float, int]  # net, subset, level, seed
Gap = dict[str, float | None]
CRITERIA_ORDER = ("l1", "taylor", "activation", "random", *CONTROLS)


def page(rows: Rows) -> str:
    """A section for each preset that has rows."""
    presets = dict.fromkeys(row["preset"] for row in rows)
    return "\n\n".join(_section(name, [row for row in rows if row["preset"] == name]) for name in presets)


def _section(name: str, rows: Rows) -> str:
    nets = list(dict.fromkeys(row["net"] for row in rows))
    of_net = {net: [row for row in rows if row["net"] == net] for net in nets}
    parts = {"all": rows} | (of_net if len(of_net) > 1 else {})
    summary = {part: summarise(here) for part, here in parts.items()}
    return "\n\n".join(
        [
            f"## `--preset {name}`",
            _setup(PRESETS[name], rows),
            "Paired differences of test top-1 on the subset, in percentage points:",
            _summary_table(summary),
            "Arms and criteria over the places of a net that all of them have:",
            _criteria_table(of_net),
            "MACs left at equal parameters left (%), `aware`, mean over subsets and seeds:",
            _macs_table(rows),
            "Test top-1 (%), mean ± standard deviation over seeds:",
            _cell_table(rows),
        ]
    )


def summarise(rows: Rows) -> dict[str, Gap]:
    """The paper's question, its two parts, and every criterion against the paper's; what was not run is left out."""
    top1: dict[tuple[str, str], dict[Place, float]] = defaultdict(
        dict
    )  # (arm, criterion) -> place -> accuracy
    for row in rows:
        top1[row["arm"], row["criterion"]][_place(row)] = row["top1"]
    questions: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {}
    for by in ("l1", "taylor"):
        questions |= {
            f"aware - agnostic ({by}): the gain": (("aware", by), ("agnostic", by)),
            f"selection - agnostic ({by}): by retraining on the subset": (
                ("selection", by),
                ("agnostic", by),
            ),
            f"aware - selection ({by}): by choosing on the subset": (("aware", by), ("selection", by)),
        }
    pairs = [("taylor", "l1"), ("activation", "l1"), ("random", "l1"), ("taylor", "activation")]
    for first, second in [*pairs, *(("taylor", control) for control in CONTROLS)]:
        questions[f"aware, {first} - {second}"] = (("aware", first), ("aware", second))
    gaps = {name: difference(top1[first], top1[second]) for name, (first, second) in questions.items()}
    return {name: gap for name, gap in gaps.items() if gap is not None}


def difference(first: dict[Place, float], second: dict[Place, float]) -> Gap | None:
    """Of `first` minus `second` over the places both have, in percentage points; None without any."""
    gap_of = {place: 100 * (first[place] - second[place]) for place in sorted(first.keys() & second.keys())}
    if not gap_of:
        return None
    gaps = list(gap_of.values())
    by_cell: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for (*cell, _seed), gap in gap_of.items():
        by_cell[tuple(cell)].append(gap)
    variances = [variance(of_cell) for of_cell in by_cell.values() if len(of_cell) > 1]
    return {
        "mean": mean(gaps),
        "std": stdev(gaps) if len(gaps) > 1 else 0.0,
        "between seeds": mean(variances) ** 0.5 if variances else None,
        "min": min(gaps),
        "max": max(gaps),
        "above 0": sum(gap > 0 for gap in gaps),
        "cells": len(gaps),
    }


def _place(row: Row) -> Place:
    return row["net"], row["subset"], row["level"], row["seed"]


def _setup(preset: Preset, rows: Rows) -> str:
    budget = preset.budget
    seeds: dict[tuple[Any, ...], set[int]] = defaultdict(set)
    for row in rows:
        if row["arm"] != "unpruned":
            seeds[_place(row)[:3]].add(row["seed"])
    counts = sorted({len(of_place) for of_place in seeds.values()})
    bases = ", ".join(
        f"{net} ({epochs} epochs one-cycle; top-1 "
        + ", ".join(f"{subset} {value:.1%}" for subset, value in _unpruned(rows, net))
        + ")"
        for net, epochs in preset.base_epochs.items()
        if any(row["net"] == net for row in rows)
    )
    return (
        f"Base networks: {bases}. Seeds per place: {' or '.join(map(str, counts))}. Epochs: {budget.finetune} of "
        f"fine-tuning and {budget.retrain} of retraining on the subset (paper: 5 and 25), {budget.agnostic} on all of "
        f"CIFAR-100 for the agnostic arm (paper: 30), on {preset.pictures_per_class * 4 // 5} training pictures per "
        f"class (paper: 400; the base has them all). Cells: {len(rows)}; "
        f"{sum(row['wall_s'] for row in rows) / 60:.0f} minutes of one thread, the bases not counted."
    )


def _unpruned(rows: Rows, net: str) -> Iterable[tuple[str, float]]:
    return ((row["subset"], row["top1"]) for row in rows if row["arm"] == "unpruned" and row["net"] == net)


def _summary_table(summary: dict[str, dict[str, Gap]]) -> str:
    heads = ["difference", "net", "mean ± std", "between seeds", "min", "max", "above 0"]
    lines = [
        (
            name, net, f"{gap['mean']:+.1f} ± {gap['std']:.1f}",
            None if gap["between seeds"] is None else f"{gap['between seeds']:.1f}",
            f"{gap['min']:+.1f}", f"{gap['max']:+.1f}", f"{gap['above 0']} of {gap['cells']}",
        )
        for name in summary["all"]
        for net, gaps in summary.items()
        if (gap := gaps.get(name))
    ]  # fmt: skip
    return markdown(heads, lines)


def _criteria_table(of_net: dict[str, Rows]) -> str:
    lines = []
    for net, rows in of_net.items():
        columns: dict[tuple[str, str], dict[Place, Row]] = defaultdict(dict)
        for row in rows:
            columns[row["arm"], row["criterion"]][_place(row)] = row
        dense = next((row["macs"] for row in columns.pop(("unpruned", "none"), {}).values()), None)
        places = set.intersection(*(set(column) for column in columns.values())) if columns else set()
        for arm, criterion in sorted(columns, key=_column_order) if places and dense else ():
            here = [columns[arm, criterion][place] for place in sorted(places)]
            top1, macs = mean(row["top1"] for row in here), mean(row["macs"] for row in here) / dense
            lines.append((net, arm, criterion, f"{top1:.1%}", f"{macs:.0%}"))
    return markdown(["net", "arm", "criterion", "top-1", "MACs left"], lines)


def _macs_table(rows: Rows) -> str:
    dense = {row["net"]: row["macs"] for row in rows if row["arm"] == "unpruned"}
    aware = [row for row in rows if row["arm"] == "aware" and row["net"] in dense]
    criteria = sorted({row["criterion"] for row in aware}, key=CRITERIA_ORDER.index)
    lines = []
    for (net, level), here in _grouped(aware, lambda row: (row["net"], row["level"])):
        left = {
            each: [row["macs"] / dense[net] for row in here if row["criterion"] == each] for each in criteria
        }
        lines.append((net, f"{level:g}", *map(_percent, left.values())))
    return markdown(["net", "level", *criteria], lines)


def _cell_table(rows: Rows) -> str:
    pruned = [row for row in rows if row["arm"] != "unpruned"]
    columns = sorted({(row["arm"], row["criterion"]) for row in pruned}, key=_column_order)
    lines = []
    for (net, subset, level), here in _grouped(pruned, lambda row: (row["net"], row["subset"], row["level"])):
        top1 = {
            each: [row["top1"] for row in here if (row["arm"], row["criterion"]) == each] for each in columns
        }
        lines.append((net, subset, f"{level:g}", *map(_percent, top1.values())))
    return markdown(["net", "subset", "level", *(f"{arm} {criterion}" for arm, criterion in columns)], lines)


def _grouped(rows: Rows, key: Callable[[Row], tuple[Any, ...]]) -> Iterable[tuple[tuple[Any, ...], Rows]]:
    groups: dict[tuple[Any, ...], Rows] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return sorted(groups.items())


def _column_order(column: tuple[str, str]) -> tuple[int, int]:
    return ("agnostic", "selection", "aware").index(column[0]), CRITERIA_ORDER.index(column[1])


def _percent(shares: list[float]) -> str:
    return mean_std(shares, 1, scale=100)
