"""What fedge costs on top of the work itself.

The start (from the first import to the first reply) and milliseconds per message of a client that does nothing, both
beside Flower's own simulation with the same client program; and the seconds of a round of real training over those of
a bare PyTorch loop, which reads the same batches and must find the same right answers. The runs take turns and each has
a process of its own; figures are medians.
"""

import argparse
import os
import tempfile
from statistics import median

from benchmarks.engine import overhead_messages, overhead_rounds
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.process import in_fresh_process
from benchmarks.measure.results import Results, Row
from benchmarks.measure.table import per_machine

GRIDS = {
    "fedge_ray": "fedge on Ray, 2 hosts",
    "flower_simulation": "Flower's simulation, same client program",
    "fedge_inline": "fedge inline",
}
CLOCKS = {
    "wall": "by the clock",
    "processor": "of the processor, every process that fedge started included",
}


def run(options: Options, results: Results) -> None:
    """Messages, then training."""
    load = os.getloadavg()[0]
    for grid, figures in messages(options.grids, options.repeats, options.clients).items():
        row = {"figure": "messages", "grid": grid, "clients": options.clients, "repeats": options.repeats}
        results.add(row | figures | _load(load))
    load = os.getloadavg()[0]
    for clock, figures in training_rounds(options.rounds, options.scenario, options.engine).items():
        row = {
            "figure": "training",
            "clock": clock,
            "scenario": options.scenario,
            "pairs": options.rounds - 1,
        }
        results.add(row | figures | _load(load))


def _load(before: float) -> dict[str, list[float]]:
    return {"load": [round(before, 1), round(os.getloadavg()[0], 1)]}


def messages(grids: list[str], repeats: int, clients: int) -> dict[str, Row]:
    """Per kind of grid: medians over `repeats` runs of two rounds each, after the first 1,000 messages."""
    found: dict[str, list[Row]] = {grid: [] for grid in grids}
    for _ in range(repeats):
        for grid in grids:
            found[grid].append(in_fresh_process(getattr(overhead_messages, grid), clients, 2))
    return {grid: _medians(rows) for grid, rows in found.items()}


def _medians(rows: list[Row]) -> Row:
    starts_s = [row["start_s"] for row in rows]
    per_message_ms = [value for row in rows for value in row["ms_per_message"]]
    return {
        "start_s": round(median(starts_s), 2),
        "start_s_range": [round(min(starts_s), 2), round(max(starts_s), 2)],
        "ms_per_message": round(median(per_message_ms), 3),
        "ms_per_message_range": [round(min(per_message_ms), 3), round(max(per_message_ms), 3)],
        "coordinator_rss_mb": round(max(row["coordinator_rss_mb"] for row in rows)),
        "all_processes_pss_mb": round(max(row["all_processes_pss_mb"] for row in rows)),
    }


def training_rounds(rounds: int, scenario: str, engine: str) -> dict[str, Row]:
    """By each clock: medians of the rounds after the first, and of the ratios of each pair."""
    with tempfile.TemporaryDirectory() as folder:
        found = in_fresh_process(
            overhead_rounds.paired_rounds, rounds, f"{folder}/out", scenario, [f"engine.kind={engine}"]
        )
    return {
        "wall": _ratio(found["fedge_s"], found["bare_s"]),
        "processor": _ratio(found["fedge_cpu_s"], found["bare_cpu_s"]),
    }


def _ratio(fedge_s: list[float], bare_s: list[float]) -> Row:
    """Medians over the rounds after the first; the ratio is the median of the pairs' ratios, with its quartiles."""
    ratios = sorted(ours / theirs for ours, theirs in list(zip(fedge_s, bare_s, strict=True))[1:])
    return {
        "fedge_s": round(median(fedge_s[1:]), 3),
        "bare_s": round(median(bare_s[1:]), 3),
        "ratio": round(median(ratios), 3),
        "ratio_quartiles": [round(ratios[len(ratios) // 4], 3), round(ratios[-1 - len(ratios) // 4], 3)],
    }


MESSAGE_COLUMNS = """
| kind | start, s | least to most | ms per message | least to most | coordinator, MB | all processes, MB | load |
| {name} | {start_s:.1f} | {start_s_range[0]:.1f} to {start_s_range[1]:.1f} | {ms_per_message:.2f} |\
 {ms_per_message_range[0]:.2f} to {ms_per_message_range[1]:.2f} | {coordinator_rss_mb:d} |\
 {all_processes_pss_mb:d} | {load[0]:.1f} to {load[1]:.1f} |
"""
MESSAGE_NOTE = (
    "a client that does nothing: {clients:,} clients, two rounds after the first 1,000 messages, {repeats} runs of "
    "each kind; medians. The start is from the first import to the first reply; most of it is Ray's."
)
TRAINING_COLUMNS = """
| seconds per round | fedge | loop | median ratio | quartiles of the ratio | load |
| {name} | {fedge_s:.2f} | {bare_s:.2f} | {ratio:.3f} | {ratio_quartiles[0]:.3f} to {ratio_quartiles[1]:.3f} |\
 {load[0]:.1f} to {load[1]:.1f} |
"""
TRAINING_NOTE = (
    "real training beside a bare PyTorch loop: `{scenario}` with six clients of one class, one host, one thread; round "
    "by round in turns, {pairs} pairs of rounds."
)


def page(rows: list[Row]) -> str:
    """A client that does nothing; real training."""
    told = [row | {"name": GRIDS[row["grid"]]} for row in rows if row["figure"] == "messages"]
    trained = [row | {"name": CLOCKS[row["clock"]]} for row in rows if row["figure"] == "training"]
    tables = (
        per_machine(told, MESSAGE_COLUMNS, MESSAGE_NOTE),
        per_machine(trained, TRAINING_COLUMNS, TRAINING_NOTE),
    )
    return "\n\n".join(tables)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind")
    parser.add_argument("--clients", type=int, default=1000, help="clients that do nothing")
    parser.add_argument("--grids", nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--rounds", type=int, default=12, help="rounds of real training")
    parser.add_argument("--scenario", default="mnist-dirichlet", help="what is trained")
    parser.add_argument("--engine", choices=["ray", "inline"], default="ray", help="where fedge trains")


BENCHMARK = Benchmark(
    name="overhead",
    purpose="What fedge costs on top of the work itself",
    takes="six minutes of two cores; needs MNIST",
    key=("figure", "grid", "clock", "scenario", "machine"),
    run=run,
    page=page,
    options=add_options,
    smoke="--repeats 1 --clients 20 --grids fedge_inline --rounds 2 --scenario quickstart --engine inline",
)
