"""What the kinds of error-map pruning save by the clock, beside what is counted: whole training steps, channels last.

Contenders take a step each in turn, on CIFAR-10; the least of the turns is reported, by the processor time of all
threads, and by the wall clock, which a busy machine blurs more. `pixel` gathers in layers of 256 channels and more
(fedge/training/error_map/gathered.py) and multiplies zeros in the others; `element` and `map` multiply them everywhere.
"""

import argparse
from typing import Any

import torch

from benchmarks.cost.wallclock import load_batches
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.networks import CIFAR_SHAPE, SHAPES, network
from benchmarks.measure.results import Results
from benchmarks.measure.steps import Batch, TrainingStep, interleaved
from benchmarks.measure.table import per_machine
from fedge.paths import data_root
from fedge.training.error_map import ErrorMapPruner
from fedge.training.macs import count_macs

KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "channel 0.5": {"keep": 0.5},
    "element p=0.9": {"kind": "element", "target": 0.9},
    "map 0.5": {"kind": "map", "keep": 0.5},
    "pixel 0.5": {"kind": "pixel", "keep": 0.5},
    "pixel 0.3": {"kind": "pixel", "keep": 0.3},
}


class Contender(TrainingStep):
    """Steps of one kind; `saved` counts the multiply-accumulates of the latest."""

    def __init__(self, model: str, options: dict[str, Any], batches: list[Batch]) -> None:
        net = network(model).to(memory_format=torch.channels_last)
        self.pruner = ErrorMapPruner(net, **options) if options else None
        if self.pruner:
            self.pruner.__enter__()
        self._table, self._instances = count_macs(net, CIFAR_SHAPE), len(batches[0][1])
        super().__init__(net, batches, torch.channels_last)
        self.saved = 0.0

    def run(self) -> None:
        """A step, counted."""
        before = self.pruner.cost if self.pruner else None
        super().run()
        if self.pruner and before is not None:
            done = self._instances * self._table.forward + (self.pruner.cost - before).macs
            self.saved = 1 - done / (self._instances * self._table.training)


def run(options: Options, results: Results) -> None:
    """Every network."""
    torch.set_num_threads(1)
    batches = load_batches(options.data, options.batch_size)
    for model in options.models:
        contenders = [Contender(model, each, batches) for each in KINDS.values()]
        times = interleaved(contenders, options.turns, warm_up=1)
        least_ms = [
            (1000 * min(row[place].cpu_s for row in times), 1000 * min(row[place].wall_s for row in times))
            for place in range(len(contenders))
        ]
        for kind, contender, (cpu_ms, wall_ms) in zip(KINDS, contenders, least_ms, strict=True):
            results.add(
                {
                    "model": model,
                    "batch_size": options.batch_size,
                    "kind": kind,
                    "turns": options.turns,
                    "cpu_ms": round(cpu_ms, 1),
                    "wall_ms": round(wall_ms, 1),
                    "counted": round(contender.saved, 3),
                    "by_the_clock": round(1 - cpu_ms / least_ms[0][0], 3),
                }
            )


COLUMNS = """
| network | batch | kind | step, ms of processor time | ms by the wall clock | MACs saved | time saved |
| {model} | {batch_size} | {kind} | {cpu_ms:.0f} | {wall_ms:.0f} | {counted:.2f} | {by_the_clock:.2f} |
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=["resnet8", "vgg16"], choices=SHAPES)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument(
        "--data", default=str(data_root(None)), help="folder of cifar-10-batches-py, or 'noise'"
    )


BENCHMARK = Benchmark(
    name="gradients_clock",
    purpose="Kinds of error-map pruning: time saved beside MACs saved",
    takes="two minutes of one idle core; needs CIFAR-10",
    key=("model", "batch_size", "kind", "machine"),
    run=run,
    page=lambda rows: per_machine(
        rows, COLUMNS, "the least of {turns} turns, one thread; time: the processor's."
    ),
    options=add_options,
    smoke="--models resnet8 --batch-size 8 --turns 1 --data noise",
)
