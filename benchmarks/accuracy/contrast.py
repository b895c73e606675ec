"""Selective contrast: does it pay to choose what stays in a small buffer of an unlabelled, correlated stream?

Contrastive learning (NT-Xent) from one pass of a stream in which a class stays for `stc` pictures, with a buffer that
is the mini-batch; then a probe of the head on few labels. From scratch, and from a factory encoder.
"""

import argparse
from dataclasses import asdict
from statistics import mean

import torch

from benchmarks.accuracy.contrast_run import ARMS, NETWORKS, RATES, Cell, rows_of, run_cell
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.results import Results, Row
from benchmarks.measure.table import markdown, mean_std
from fedge.paths import data_root

LABELS = (10, 50, 500)
KEY = ("dataset", "start", "stc", "arm", "seed", "segments", "buffer")


def run(options: Options, results: Results) -> None:
    """Every cell that has no row yet."""
    torch.set_num_threads(1)
    cells = [
        Cell(options.dataset, start, stc, arm, seed, options.segments, options.buffer)
        for seed in options.seeds
        for stc in options.stc
        for start in options.starts
        for arm in options.arms
    ]
    for cell in results.missing(cells):
        data = rows_of(cell.dataset, options.data, options.tests)
        results.add(asdict(cell) | run_cell(cell, data, tuple(options.labels)))


def page(rows: list[Row]) -> str:
    """A table for each data set, start and correlation."""
    groups: dict[tuple[str, str, int, int, int], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["dataset"], row["start"], -row["stc"])):
        key = row["dataset"], row["start"], row["stc"], row["segments"], row["buffer"]
        groups.setdefault(key, []).append(row)
    return "\n\n".join(_table(key, group) for key, group in groups.items())


def _table(key: tuple[str, str, int, int, int], rows: list[Row]) -> str:
    dataset, start, stc, segments, buffer = key
    lines = []
    probes = sorted((name for name in rows[0] if name.startswith("probe_")), key=lambda name: int(name[6:]))
    for arm in (arm for arm in ARMS if any(row["arm"] == arm for row in rows)):
        own = [row for row in rows if row["arm"] == arm]
        classes = [row["classes"] for row in own if row["classes"] is not None]
        lines.append(
            [
                arm,
                *(mean_std([row[probe] for row in own], 1) for probe in probes),
                f"{mean(classes):.1f}" if classes else None,
                f"{mean(row['macs'] for row in own) / 1e9:,.0f}",
                f"{mean(row['macs_score'] for row in own) / 1e9:,.0f}",
                len(own),
            ]
        )
    heads = ["arm", *(f"{probe[6:]} labels a class" for probe in probes), "classes in the buffer"]
    return (
        f"## {dataset}, {NETWORKS[dataset]}, {'from scratch' if start == 'scratch' else 'from a factory encoder'}, "
        f"{'shuffled' if stc == 1 else f'a class for {stc} samples'}\n\n"
        f"{segments} segments of {buffer}, buffer {buffer}; {rows[0]['machine']}, commit {rows[0]['commit']}. "
        "Right answers of the probed head, %.\n\n"
        + markdown([*heads, "GMAC, training", "GMAC, scoring", "seeds"], lines)
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", choices=NETWORKS, default="cifar10")
    parser.add_argument("--data", default=str(data_root(None)), help="folder of the data sets")
    parser.add_argument("--starts", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--stc", type=int, nargs="+", default=[250, 1], help="samples of a class in a row")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--segments", type=int, default=250)
    parser.add_argument("--buffer", type=int, default=64)
    parser.add_argument(
        "--tests", type=int, default=5000, help="test rows that the probe is judged on, at most"
    )
    parser.add_argument(
        "--labels", type=int, nargs="+", default=list(LABELS), help="of each class, for the probe"
    )


BENCHMARK = Benchmark(
    name="contrast",
    purpose="Selective contrast: rules of a small buffer on an unlabelled stream",
    takes="an hour of one core a seed",
    key=KEY,
    run=run,
    page=page,
    options=add_options,
    smoke="--dataset digits --starts scratch --stc 8 --arms contrast reservoir_more --segments 3 --buffer 8 --tests 20 "
    "--labels 1",
)
