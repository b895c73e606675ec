"""How far the virtual clock is from a real one, on the machine that runs this.

The host is made a device: its bandwidth is that of a long copy, its usable throughput such that the clock is
right about ResNet-20 with batches of 32. Then the clock's formula predicts the training step of other networks,
batches and levels, and each is compared with the processor time that it really takes (median of `--repeats`
steps, one thread). Processor time and not wall time, so that other work on the machine counts less.
"""

import argparse
import dataclasses
from statistics import median

import torch

from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.networks import SHAPES, network
from benchmarks.measure.results import Results, Row
from benchmarks.measure.steps import TrainingStep, interleaved, random_batches, timed
from benchmarks.measure.table import per_machine
from fedge.catalog.devices import DeviceProfile, profile
from fedge.device.budget.clock import Work, round_cost
from fedge.device.memory.peak import peak_training_memory
from fedge.errors import RunError
from fedge.scenario.schema import Clock
from fedge.training.macs import count_macs
from fedge.training.memory_format import fast_order

CALIBRATION = ("resnet20", 0.0, 32)
CELLS = (
    ("resnet20", 0.0, 8),
    ("resnet20", 0.5, 32),
    ("lenet", 0.0, 8),
    ("lenet", 0.0, 32),
    ("lenet", 0.5, 32),
    ("squeezenet", 0.0, 32),
    ("squeezenet", 0.5, 32),
    ("mobilenet_v2", 0.0, 8),
    ("mobilenet_v2", 0.0, 32),
    ("mobilenet_v2", 0.5, 32),
)


def run(options: Options, results: Results) -> None:
    """Calibrate, then predict and measure each cell."""
    torch.set_num_threads(1)
    host = calibrated_host(options.repeats)
    for name, level, batch_size in CELLS:
        if name in options.models:
            results.add(measure(host, name, level, batch_size, options.repeats))


def calibrated_host(repeats: int) -> DeviceProfile:
    """This machine as a device: two numbers measured, the others of no matter here."""
    source, target = torch.ones(32 * 2**20), torch.empty(32 * 2**20)
    target.copy_(source)  # its pages are mapped now
    copy_s = median(timed(lambda: target.copy_(source)).cpu_s for _ in range(repeats))
    host = dataclasses.replace(profile("raspberry-pi-4"), memory_gbs=2 * source.nbytes / copy_s / 1e9)
    work, measured_s = step(*CALIBRATION, repeats)
    traffic_s = round_cost(host, dataclasses.replace(work, macs=0), Clock()).compute_s
    if measured_s <= traffic_s:
        raise RunError(
            f"the clock cannot be calibrated: a step takes {measured_s:.3f} s, its traffic alone {traffic_s:.3f} s at "
            f"{host.memory_gbs:.1f} GB/s; measure on an idle machine, with more --repeats"
        )
    return dataclasses.replace(host, train_gflops=2 * work.macs / (measured_s - traffic_s) / 1e9)


def measure(host: DeviceProfile, name: str, level: float, batch_size: int, repeats: int) -> Row:
    """One training step, predicted and measured."""
    work, measured_s = step(name, level, batch_size, repeats)
    predicted_s = round_cost(host, work, Clock()).compute_s
    return {
        "model": name,
        "level": level,
        "batch_size": batch_size,
        "repeats": repeats,
        "host_train_gflops": host.train_gflops,
        "host_memory_gbs": host.memory_gbs,
        "predicted_ms": 1e3 * predicted_s,
        "measured_ms": 1e3 * measured_s,
        "ratio": predicted_s / measured_s,
    }


def step(name: str, level: float, batch_size: int, repeats: int) -> tuple[Work, float]:
    """A training step's counts, and the processor seconds it takes: the median after one to warm up."""
    shape, model = SHAPES[name], network(name, level)
    work = Work(
        macs=batch_size * count_macs(model, shape).training,
        steps=1,
        memory_bytes=peak_training_memory(lambda: model, batch_size=batch_size, input_shape=shape),
        received_bytes=0,
        sent_bytes=0,
    )
    batches = random_batches(batch_size, shape)
    training = TrainingStep(model, batches, fast_order(model, batch_size, shape), momentum=0.0)
    return work, median(times.cpu_s for (times,) in interleaved([training], repeats, warm_up=1))


COLUMNS = """
| network | level | batch | predicted, ms | measured, ms | predicted / measured |
| {model} | {level:g} | {batch_size} | {predicted_ms:.1f} | {measured_ms:.1f} | {ratio:.2f} |
"""
NOTE = "as a device: {host_train_gflops:.1f} GFLOP/s, {host_memory_gbs:.1f} GB/s; medians of {repeats} steps."


def page(rows: list[Row]) -> str:
    """The cells, and the range of the ratios."""
    ratios = [row["ratio"] for row in rows]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}, median {median(ratios):.2f}"
    return f"{per_machine(rows, COLUMNS, NOTE)}\n\nPredicted / measured: {spread}."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=sorted({name for name, *_ in CELLS}), choices=SHAPES)
    parser.add_argument("--repeats", type=int, default=11, help="steps per cell")


BENCHMARK = Benchmark(
    name="clock",
    purpose="The virtual clock beside a real one",
    takes="two minutes of one core",
    key=("model", "level", "batch_size", "machine"),
    run=run,
    page=page,
    options=add_options,
    smoke="--models lenet --repeats 3",
)
