"""Estimated against measured peak training memory.

Each row is one network, pruned to one level, trained with one batch size and one optimiser: the estimate of
fedge.device.memory on fake tensors, the peak of what torch's CPU allocator handed out in two real training steps,
and how far the estimate is off.
"""

import argparse
import time
from itertools import product
from typing import Any

import torch

from benchmarks.measure.allocator import allocator_peak
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.networks import SHAPES, network
from benchmarks.measure.results import Results, Row
from benchmarks.measure.table import measured_on, per_machine
from fedge.device.memory.peak import peak_training_memory

NETWORKS = ("lenet", "resnet20", "mobilenet_v2", "squeezenet")
BATCHES, LEVELS = (8, 32), (0.0, 0.3, 0.7)
METHODS: tuple[dict[str, Any], ...] = (
    {"optimizer": "sgd"},
    {"optimizer": "momentum"},
    {"optimizer": "sgd", "error_maps": 0.25},
)


def run(options: Options, results: Results) -> None:
    """Every network, level, batch size and method."""
    torch.set_num_threads(1)
    for name, level in product(options.models, options.levels):
        for batch_size, method in product(options.batches, METHODS):
            results.add(measure(name, level, batch_size, method))


def measure(name: str, level: float, batch_size: int, method: dict[str, Any]) -> Row:
    """One row: bytes, estimated and measured."""
    model, shape = network(name, level), SHAPES[name]
    began_s = time.perf_counter()
    estimated = peak_training_memory(lambda: model, batch_size=batch_size, input_shape=shape, **method)
    estimate_s = time.perf_counter() - began_s
    measured = allocator_peak(model, batch_size=batch_size, input_shape=shape, **method)
    return {
        "model": name,
        "level": level,
        "batch_size": batch_size,
        "optimizer": method["optimizer"],
        "error_maps": method.get("error_maps", 1.0),
        "estimated": estimated,
        "measured": measured,
        "error": estimated / measured - 1,
        "estimate_s": round(estimate_s, 2),
    }


COLUMNS = """
| network | level | batch | optimiser | error maps kept | estimated | measured | error |
| {model} | {level:g} | {batch_size} | {optimizer} | {error_maps:g} | {estimated:,} | {measured:,} | {error:+.3%} |
"""
SUMMARY = """
| network | cells | peak, MB | largest error | longest estimate, s |
| {model} | {cells} | {least_mb:.1f} to {most_mb:.1f} | {worst:.2%} | {longest_s:.1f} |
"""


def page(rows: list[Row]) -> str:
    """Per network the range of peaks and the largest error; then every cell."""
    of_model: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        of_model.setdefault((measured_on(row), row["model"]), []).append(row)
    summary = [
        cells[0]
        | {
            "cells": len(cells),
            "least_mb": min(row["measured"] for row in cells) / 1e6,
            "most_mb": max(row["measured"] for row in cells) / 1e6,
            "worst": max(abs(row["error"]) for row in cells),
            "longest_s": max(row["estimate_s"] for row in cells),
        }
        for cells in of_model.values()
    ]
    note = "one thread, bytes at the peak, estimated without running and measured."
    return f"{per_machine(summary, SUMMARY, note)}\n\n{per_machine(rows, COLUMNS, note)}"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=NETWORKS, choices=SHAPES)
    parser.add_argument("--levels", nargs="+", type=float, default=LEVELS, help="shares of parameters cut")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="samples in a mini-batch")


BENCHMARK = Benchmark(
    name="memory",
    purpose="Peak training memory, estimated and measured",
    takes="three minutes of two cores",
    key=("model", "level", "batch_size", "optimizer", "error_maps", "machine"),
    run=run,
    page=page,
    options=add_options,
    smoke="--models lenet --levels 0.3 --batches 8",
)
