"""What training a part of a network costs, told and measured.

Each row is one network of which `what` is trained (fedge.training.update.what), by AdamW: the multiply-accumulates of
a training step as fedge counts them, and as torch's FLOP counter sees them run; the peak memory as fedge.device.memory
estimates it, and as torch's CPU allocator handed it out.
"""

import argparse
import copy
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.measure.allocator import allocator_peak
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.judge import Judge
from benchmarks.measure.networks import SHAPES, network
from benchmarks.measure.results import Results, Row
from benchmarks.measure.steps import random_batches
from benchmarks.measure.table import per_machine
from fedge.catalog.names import WHAT
from fedge.device.memory.peak import peak_training_memory
from fedge.training.loop import train
from fedge.training.update.what import freeze, training_mode

NETWORKS = ("resnet20", "mobilenet_v2")
BATCHES = (8, 32)


def run(options: Options, results: Results) -> None:
    """Every network, batch size and part."""
    torch.set_num_threads(1)
    for name, batch_size, what in product(options.models, options.batches, WHAT):
        results.add(measure(name, batch_size, what))


def measure(name: str, batch_size: int, what: str) -> Row:
    """One row: multiply-accumulates per sample, and bytes."""
    model, shape = network(name), SHAPES[name]
    freeze(model, what, shape)
    x_BCHW, y_B = random_batches(batch_size, shape)[0]
    trained = copy.deepcopy(model)
    told = train(trained, [(x_BCHW, y_B)], optimizer=torch.optim.AdamW(trained.parameters())).macs_done
    how = {"batch_size": batch_size, "input_shape": shape}
    estimated = peak_training_memory(lambda: model, optimizer="adam", **how)
    measured = allocator_peak(model, optimizer="adam", **how)
    return {
        "model": name,
        "batch_size": batch_size,
        "what": what,
        "parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "macs_told": told // batch_size,
        "macs_measured": _macs_run(model, x_BCHW, y_B) // batch_size,
        "memory_told": estimated,
        "memory_measured": measured,
        "memory_error": estimated / measured - 1,
    }


def _macs_run(model: nn.Module, x_BCHW: torch.Tensor, y_B: torch.Tensor) -> int:
    """Of one step on a copy, as torch saw them."""
    model = copy.deepcopy(model)
    training_mode(model)
    with Judge() as judge:
        F.cross_entropy(model(x_BCHW), y_B).backward()
    return int(judge.get_total_flops()) // 2


COLUMNS = """
| network | batch | what | parameters trained | MACs per sample, told | measured | peak memory, told | measured | off |
| {model} | {batch_size} | {what} | {parameters:,} | {macs_told:,} | {macs_measured:,} | {memory_told:,} | {memory_measured:,} | {memory_error:+.3%} |
"""  # noqa: E501 - one line each


def page(rows: list[Row]) -> str:
    """Every cell."""
    note = "one thread, AdamW; MACs of a training step, bytes at its peak."
    return per_machine(rows, COLUMNS, note)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=NETWORKS, choices=SHAPES)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="samples in a mini-batch")


BENCHMARK = Benchmark(
    name="frozen",
    purpose="Training a part of a network: MACs and peak memory, told and measured",
    takes="a minute of one core",
    key=("model", "batch_size", "what", "machine"),
    run=run,
    page=page,
    options=add_options,
    smoke="--models resnet8 --batches 8",
)
