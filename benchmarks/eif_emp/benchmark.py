"""Accuracy against remaining compute: the filters, the error maps and the baselines on the same streams.

    --preset cpu                    LeNet / MNIST: many streams at 1000 iterations, the paper's 18.7k in full;
                                    CIFAR-10 with ResNet-8, 600 iterations
    --preset full --device cuda     ResNet-74/110 and VGG-16, 64k iterations

A cell is (task, regime, method, seed). Finished cells are not run again, so a broken run resumes where it stopped.
"""

import argparse

import torch

from benchmarks.eif_emp.grid import PRESETS
from benchmarks.eif_emp.run import Cell, run_cell
from benchmarks.eif_emp.tables import page
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.results import Results
from fedge.paths import data_root


def run(options: Options, results: Results) -> None:
    """The preset's cells that have no row yet."""
    torch.set_num_threads(options.threads)
    waiting: list[Cell] = results.missing(PRESETS[options.preset]())
    for number, cell in enumerate(waiting, 1):
        row = run_cell(cell, options.data, options.device)
        results.add(row)
        print(
            f"[{number}/{len(waiting)}] {cell.task.model} {cell.regime} {cell.method.name} seed {cell.seed}: "
            f"accuracy {row['accuracy']:.4f}, saved {row['saved']:.4f}, kept {row['kept_share']:.3f}, "
            f"{row['time_s']:.0f} s",
            flush=True,
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=PRESETS, default="cpu", help="smoke: what --smoke runs")
    parser.add_argument("--data", default=str(data_root(None)), help="folder of the data sets")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, default=1)


BENCHMARK = Benchmark(
    name="eif_emp",
    purpose="Instance filters and error maps: accuracy against remaining compute",
    takes="hours (--preset cpu) to days (full); needs MNIST and CIFAR-10",
    key=("task", "regime", "method", "seed"),
    run=run,
    page=page,
    options=add_options,
    smoke="--preset smoke",
)
