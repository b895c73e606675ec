"""Low-cost adaptation on five subsets of CIFAR-100: the label prior by EM, heads on features, the whole network.

Each row is one method on one subset of one world (a factory model of its own, and other rows). Accuracy is on the
subset's test rows; "all" is the same network on everybody's test rows without a prior or a mask: what is forgotten.
Learning rates are chosen of three, per method, by validation rows over all that was measured.
"""

import argparse
from collections.abc import Iterable
from statistics import mean

import torch

from benchmarks.adaptation.heads import RATES
from benchmarks.adaptation.measuring import PARTS, SHIPPED, Measuring, all_rows
from benchmarks.adaptation.world import SUBSETS, World
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.results import Results, Row
from benchmarks.measure.table import markdown, mean_std

WORLDS = (7, 8, 9)


def run(options: Options, results: Results) -> None:
    """World by world, the cheap parts first; what is there already is left out."""
    torch.set_num_threads(1)
    for number in options.worlds:
        done = {
            (row["subset"], row["part"])
            for row in results.rows
            if (row["model"], row["world"]) == (options.model, number)
        }
        wanted = [(name, part) for part in options.parts for name in options.subsets]
        if done.issuperset(wanted):
            continue
        changes = [*options.changes, f"model.name={options.model}"]
        world = World.of(options.scenario, number, SHIPPED, changes)
        trunk = world.trunk()
        others = all_rows(world, trunk)
        measuring = {group.name: Measuring(world, group, trunk, others) for group in world.groups}
        for name, part in wanted:
            if (name, part) not in done:
                for row in list(measuring[name].rows(part, options.rates)):
                    results.add({"model": options.model, "world": number, "part": part, **row})


def chosen(rows: Iterable[Row]) -> list[Row]:
    """Of each method the rows of its best learning rate, by mean validation accuracy."""
    rows = list(rows)
    best: list[Row] = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        rates = dict.fromkeys(row["rate"] for row in own)

        def judged(rate: float | None, own: list[Row] = own) -> float:
            return mean(row["validation"] for row in own if row["rate"] == rate)

        rate = max(rates, key=judged)
        best += [row for row in own if row["rate"] == rate]
    return best


def page(rows: list[Row]) -> str:
    """A table for each network: accuracy by subset, then what it costs."""
    parts = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = chosen(row for row in rows if row["model"] == model)
        worlds = sorted({row["world"] for row in own})
        heads = ["method", *SUBSETS, "mean", "everybody's", "MACs", "peak memory, MB", "shipped, kB", "rate"]
        lines = [_line(own, method) for method in dict.fromkeys(row["method"] for row in own)]
        said = ", ".join(map(str, worlds))
        parts.append(f"## {model}, worlds {said}\n\n{markdown(heads, lines)}")
    return "\n\n".join(parts)


def _line(rows: list[Row], method: str) -> list[object]:
    """Means over worlds in %, with their standard deviation."""
    own = [row for row in rows if row["method"] == method]
    by_subset = [[row["accuracy"] for row in own if row["subset"] == name] for name in SUBSETS]
    worlds = sorted({row["world"] for row in own})
    means = [mean(row["accuracy"] for row in own if row["world"] == world) for world in worlds]
    kept = [row["all"] for row in own if row["all"] is not None]
    peaks = [row["peak_bytes"] for row in own if row["peak_bytes"]]
    return [
        method,
        *(mean_std(values, 1, 100) for values in by_subset),
        mean_std(means, 1, 100),
        f"{100 * mean(kept):.1f}" if kept else None,
        f"{mean(row['macs'] for row in own):.2e}",
        f"{mean(peaks) / 1e6:.2f}" if peaks else None,
        f"{mean(row['shipped_bytes'] for row in own) / 1e3:.1f}",
        own[0]["rate"],
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenario", default="cifar100-subsets", help="whose clients are five groups")
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--worlds", nargs="+", type=int, default=WORLDS)
    parser.add_argument("--subsets", nargs="+", default=SUBSETS, choices=SUBSETS)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument(
        "--rates", nargs="+", type=float, default=RATES, help="of the whole network's training"
    )
    parser.add_argument(
        "--set", dest="changes", nargs="+", default=(), metavar="KEY=VALUE", help="of the scenario"
    )


BENCHMARK = Benchmark(
    name="adaptation",
    purpose="Adapting without training a trunk: label prior and heads on features, CIFAR-100 subsets",
    takes="half an hour of one core, and ten minutes for each factory model that is not in the cache",
    key=("model", "world", "subset", "method", "rate"),
    run=run,
    page=page,
    options=add_options,
    smoke="--scenario quickstart --model lenet --worlds 7 --subsets aquatic --set model.factory.epochs=1",
)
