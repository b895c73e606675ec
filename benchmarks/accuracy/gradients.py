"""Kinds of error-map pruning against each other: channels (EMP), single numbers (Ye et al.), pixels, maps of instances.

    --preset cifar        ResNet-8 / CIFAR-10, 600 iterations of batch 128, the recipe of `eif_emp`
    --preset long         the same, 2500 iterations
    --preset lenet        LeNet / MNIST, 5000 iterations, with the instance filter at 0.2
    --preset lenet_full   the same, the paper's 18.7k iterations

`smb S` is dense training over a share S of the iterations, the learning rate's schedule rescaled to them: what pruning
has to beat at equal multiply-accumulates. A cell is (task, regime, method, seed); finished cells are not run again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.eif_emp.grid import CIFAR, LENET, SHORT, early, error_maps, fewer_iterations
from benchmarks.eif_emp.run import Cell, Method, Task, run_cell
from benchmarks.eif_emp.tables import page
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.results import Results
from fedge.paths import data_root

RESNET8 = replace(CIFAR, model="resnet8", iterations=600)
DENSE = Method()


def element(target: float, method: Method = DENSE) -> Method:
    """Ye et al.'s rule at p = target, alone or with another method."""
    name = f"element p={target:g}" if method is DENSE else f"{method.name} + element p={target:g}"
    return replace(method, name=name, error_options=(("kind", "element"), ("target", target)))


def units(kind: str, keep: float) -> Method:
    """Pixels or maps of single instances."""
    return Method(name=f"{kind} {keep:g}", error_keep=keep, error_options=(("kind", kind),))


def _cells(task: Task, methods: Sequence[Method], seeds: Sequence[int]) -> list[Cell]:
    return [Cell(task, "plain", method, seed) for method in methods for seed in seeds]


def _smoke() -> list[Cell]:
    task = replace(SHORT, dataset="digits", iterations=40, batch_size=16)
    methods = (DENSE, element(0.9), units("pixel", 0.5), units("map", 0.5), element(0.9, early(0.4)))
    return _cells(task, methods, [0])


def _cifar() -> list[Cell]:
    """The decisive ones first."""
    first = (element(0.9), units("pixel", 0.5), fewer_iterations(0.54), DENSE)
    second = (units("pixel", 0.3), units("map", 0.5), error_maps(0.5), fewer_iterations(0.67))
    return [cell for some in (first, second) for seed in range(3) for cell in _cells(RESNET8, some, [seed])]


def _long() -> list[Cell]:
    task = replace(RESNET8, iterations=2500)
    methods = (element(0.9), units("pixel", 0.5), fewer_iterations(0.54), DENSE)
    return [cell for seed in range(3) for cell in _cells(task, methods, [seed])]


def _lenet() -> list[Cell]:
    task = replace(LENET, iterations=5000)
    methods = (DENSE, element(0.9, early(0.2)), early(0.2, error_keep=0.5))
    return [cell for seed in range(3) for cell in _cells(task, methods, [seed])]


def _lenet_full() -> list[Cell]:
    return _cells(LENET, [element(0.9, early(0.15)), DENSE], [0, 1, 2])


PRESETS = {
    "smoke": _smoke,
    "cifar": _cifar,
    "long": _long,
    "lenet": _lenet,
    "lenet_full": _lenet_full,
}


def run(options: Options, results: Results) -> None:
    """The presets' cells that have no row yet."""
    torch.set_num_threads(options.threads)
    for preset in options.preset:
        for cell in results.missing(PRESETS[preset]()):
            row = run_cell(cell, options.data, options.device)
            results.add(row)
            print(
                f"{cell.task.model}, {cell.task.iterations} iterations, {cell.method.name}, seed {cell.seed}: "
                f"accuracy {row['accuracy']:.4f}, saved {row['saved']:.4f}, {row['time_s']:.0f} s",
                flush=True,
            )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=["cifar", "lenet", "long"])
    parser.add_argument("--data", default=str(data_root(None)), help="folder of the data sets")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, default=1)


BENCHMARK = Benchmark(
    name="gradients",
    purpose="Kinds of error-map pruning: accuracy against multiply-accumulates saved",
    takes="three hours of one core; needs MNIST and CIFAR-10",
    key=("task", "regime", "method", "seed"),
    run=run,
    page=page,
    options=add_options,
    smoke="--preset smoke",
)
