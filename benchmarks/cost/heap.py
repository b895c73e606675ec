"""Does training gain by keeping the memory that it frees?

Training steps as devices make them, in two processes in turns: one inside fedge.training.heap's `kept_heap`, one not
(malloc's thresholds cannot be put back within a process). One thread; medians over the turns of kept / outside, and
what the kernel counts of each process: page faults per step and the most memory resident.
"""

import argparse
import platform
import resource
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import Connection
from statistics import median

import torch

from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.networks import SHAPES, network
from benchmarks.measure.process import beside
from benchmarks.measure.results import Results, Row
from benchmarks.measure.steps import TrainingStep, interleaved, random_batches
from benchmarks.measure.table import per_machine
from fedge.training.heap import kept_heap
from fedge.training.memory_format import fast_order

BATCH_SIZE = 32
WAYS: dict[str, Callable[[], AbstractContextManager[None]]] = {"outside": nullcontext, "kept": kept_heap}
NETWORKS = tuple(name for name in SHAPES if name != "resnet110")


def answer_steps(pipe: Connection, way: str, name: str) -> None:
    """In a process of its own: for each message a step, and its seconds, page faults, MB resident at most so far."""
    torch.set_num_threads(1)
    model, shape = network(name), SHAPES[name]
    step = TrainingStep(model, random_batches(BATCH_SIZE, shape), fast_order(model, BATCH_SIZE, shape))
    with WAYS[way]():
        while pipe.recv() is not None:
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            time_s = step().wall_s
            usage = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send((time_s, usage.ru_minflt - faults, usage.ru_maxrss / 1024))


def run(options: Options, results: Results) -> None:
    """Every network."""
    for name in options.models:
        results.add(measure(name, options.turns))


def measure(name: str, turns: int) -> Row:
    """One row; figures of both processes side by side, outside first."""
    with (
        beside(answer_steps, "outside", name) as (outside, _),
        beside(answer_steps, "kept", name) as (kept, _),
    ):
        steps = interleaved([lambda: ask(outside), lambda: ask(kept)], turns, warm_up=3)
    ways = list(zip(*steps, strict=True))
    return {
        "model": name,
        "batch_size": BATCH_SIZE,
        "turns": turns,
        "libc": " ".join(platform.libc_ver()),
        "step_ms": round(1000 * median(time_s for time_s, *_ in ways[0]), 1),
        "kept_over_outside": round(median(kept[0] / outside[0] for outside, kept in steps), 2),
        "page_faults": [round(median(faults for _, faults, _ in way)) for way in ways],
        "resident_mb": [round(way[-1][2]) for way in ways],
    }


def ask(pipe: Connection) -> tuple[float, int, float]:
    """One step of that process."""
    pipe.send("step")
    time_s, faults, resident_mb = pipe.recv()
    return time_s, faults, resident_mb


COLUMNS = """
| network | step, ms | kept / outside | page faults per step | kept | MB resident at most | MB, kept |
| {model} | {step_ms:.1f} | {kept_over_outside:.2f} | {page_faults[0]:,} | {page_faults[1]:,} |\
 {resident_mb[0]} | {resident_mb[1]} |
"""
NOTE = "{libc}, one thread, batch {batch_size}, {turns} turns."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--turns", type=int, default=31)


BENCHMARK = Benchmark(
    name="heap",
    purpose="Freed memory kept for the next training step, or given back",
    takes="three minutes of one idle core",
    key=("model", "batch_size", "machine"),
    run=run,
    page=lambda rows: per_machine(rows, COLUMNS, NOTE),
    options=add_options,
    smoke="--models lenet --turns 2",
)
