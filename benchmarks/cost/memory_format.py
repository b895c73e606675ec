"""Which memory format trains a network faster, NCHW or channels last, and what fedge's rule says.

One plain SGD step of the same network on the same samples, in both formats in turns, one thread: median of NCHW /
channels last (above 1: channels last is faster) beside the maps per weight, by which fedge.training.memory_format
chooses.
"""

import argparse
import copy
from itertools import product
from statistics import median

import torch

from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.networks import SHAPES, network
from benchmarks.measure.results import Results, Row
from benchmarks.measure.steps import FORMATS, TrainingStep, interleaved, random_batches
from benchmarks.measure.table import per_machine
from fedge.training.memory_format import MAPS_PER_WEIGHT, fast_order, maps_per_weight

NETWORKS = tuple(name for name in SHAPES if name != "resnet110")
BATCHES, LEVELS = (1, 8, 32, 128), (0.0, 0.6)
NAME_OF = {memory_format: name for name, memory_format in FORMATS.items()}


def run(options: Options, results: Results) -> None:
    """Every network, level and batch size."""
    torch.set_num_threads(1)
    for name, level, batch_size in product(options.models, LEVELS, options.batches):
        if batch_size > 1 or name not in ("lenet", "har_cnn"):  # a norm of one value, or no maps to speak of
            results.add(measure(name, level, batch_size, options.turns))


def measure(name: str, level: float, batch_size: int, turns: int) -> Row:
    """One row: both formats in turns."""
    model, shape = network(name, level), SHAPES[name]
    batches = random_batches(batch_size, shape)
    steps = [TrainingStep(copy.deepcopy(model), batches, each) for each in FORMATS.values()]
    times = interleaved(steps, turns)
    return {
        "model": name,
        "level": level,
        "batch_size": batch_size,
        "turns": turns,
        "maps_per_weight": round(maps_per_weight(model, batch_size, shape), 2),
        "nchw_ms": round(1000 * median(nchw.wall_s for nchw, _ in times), 1),
        "nchw_over_channels_last": round(median(nchw.wall_s / last.wall_s for nchw, last in times), 2),
        "chosen": NAME_OF[fast_order(model, batch_size, shape)],
    }


COLUMNS = """
| network | level | batch | maps per weight | NCHW step, ms | NCHW / channels last | chosen |
| {model} | {level:g} | {batch_size} | {maps_per_weight:.2f} | {nchw_ms:.1f} | {nchw_over_channels_last:.2f} |\
 {chosen} |
"""
NOTE = f"one thread, {{turns}} turns; channels last is chosen from {MAPS_PER_WEIGHT} maps per weight on."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="samples in a mini-batch")
    parser.add_argument("--turns", type=int, default=11)


BENCHMARK = Benchmark(
    name="memory_format",
    purpose="NCHW or channels last: which memory format trains faster",
    takes="five minutes of one idle core",
    key=("model", "level", "batch_size", "machine"),
    run=run,
    page=lambda rows: per_machine(rows, COLUMNS, NOTE),
    options=add_options,
    smoke="--models lenet --batches 8 --turns 1",
)
