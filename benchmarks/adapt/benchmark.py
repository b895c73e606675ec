"""ADaPT's experiment: networks x subsets of CIFAR-100 x levels x arms x criteria x seeds.

    --preset cpu       scaled down; 143 minutes of one thread, half of that with --workers 2, and the base networks
    --preset trained   ResNet-8 from a base trained for 30 epochs: as long again
    --preset deeper    ResNet-20 from a base trained for 12 epochs: shorter
    --preset full      the paper's grid; meant for --device cuda

Finished cells are not run again, so a broken run resumes where it stopped. The base networks are kept in `--cache`,
outside the checkout.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, replace
from functools import lru_cache, partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.adapt.base import CACHE, base_network, load_pictures
from benchmarks.adapt.controls import CONTROLS
from benchmarks.adapt.grid import PRESETS, Cell, cells
from benchmarks.adapt.protocol import RECIPES, Adapt, Outcome, Split
from benchmarks.adapt.tables import page
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.results import Results, Row
from fedge.data.known.cifar100_classes import SUBSETS
from fedge.paths import data_root
from fedge.training.macs import count_macs


class Place(NamedTuple):
    """Where an experiment runs: preset, data, base networks, torch device."""

    preset: str
    data: str
    cache: Path
    device: str


class Experiment:
    """Runs cells; keeps the base networks, the fine-tuned one and the agnostic one that were used last."""

    def __init__(self, place: Place) -> None:
        self.preset, self.cache = PRESETS[place.preset], place.cache
        self.pictures, self.train_count = load_pictures(place.data, place.device)
        self.base = lru_cache(self._base)
        self._split = lru_cache(self._make_split)
        self._tuned = lru_cache(maxsize=1)(self._make_tuned)
        self._agnostic = lru_cache(maxsize=1)(self._make_agnostic)

    def run(self, cell: Cell) -> Row:
        """The cell and what came of it: test top-1, best epoch, parameters and MACs left, seconds."""
        started_s = time.perf_counter()
        protocol = self._protocol(cell.net, cell.subset, cell.seed)
        model, epoch = protocol.base, 0
        if cell.arm != "unpruned":
            outcome = self._outcome(protocol, cell)
            model, epoch = outcome.model, outcome.epoch
        return {
            **asdict(cell),
            "top1": protocol.top1(model),
            "epoch": epoch,
            "parameters": sum(p.numel() for p in model.parameters()),
            "macs": count_macs(model, tuple(self.pictures.x_NCHW.shape[1:])).forward,
            "wall_s": round(time.perf_counter() - started_s, 1),
        }

    def _outcome(self, protocol: Adapt, cell: Cell) -> Outcome:
        if cell.arm == "agnostic":
            return self._agnostic(cell.net, cell.level, cell.criterion, cell.seed)
        tuned = self._tuned(cell.net, cell.subset, cell.seed)
        arm: Any = getattr(protocol, cell.arm)
        outcome: Outcome = arm(tuned, cell.level, CONTROLS.get(cell.criterion, cell.criterion))
        return outcome

    def _protocol(self, net: str, subset: str | None, seed: int) -> Adapt:
        return Adapt(
            base=self.base(net),
            pictures=self.pictures,
            whole=self._split(None),
            subset=self._split(subset),
            recipe=RECIPES[net],
            budget=self.preset.budget,
            seed=seed,
        )

    def _base(self, net: str) -> nn.Module:
        everything = Split.of_classes(self.pictures.y_N, self.train_count)
        return base_network(net, self.preset.base_epochs[net], self.pictures, everything, self.cache)

    def _make_tuned(self, net: str, subset: str, seed: int) -> nn.Module:
        return self._protocol(net, subset, seed).fine_tune()

    def _make_agnostic(self, net: str, level: float, criterion: str, seed: int) -> Outcome:
        return self._protocol(net, None, seed).agnostic(level, criterion)

    def _make_split(self, subset: str | None) -> Split:
        """The authors' split, with at most `pictures_per_class` of each class: 4 to train for 1 to validate."""
        labels_N, cap = self.pictures.y_N, self.preset.pictures_per_class
        classes = None if subset is None else SUBSETS[subset]
        split = Split.of_classes(labels_N, self.train_count, classes)
        train, validation = (
            torch.cat([rows[labels_N[rows] == label][:most] for label in labels_N[rows].unique()])
            for rows, most in ((split.train, cap * 4 // 5), (split.validation, cap // 5))
        )
        return replace(split, train=train, validation=validation)


experiment_at = lru_cache(Experiment)
"""Made once per process."""


def run(options: Options, results: Results) -> None:
    """Train the base networks that are missing, then the cells, those that share a network in one process."""
    waiting: list[Cell] = results.missing(cells(options.preset))
    place = Place(options.preset, options.data, options.cache, options.device)
    torch.set_num_threads(options.workers * options.threads)
    for net in dict.fromkeys(cell.net for cell in waiting):
        experiment_at(place).base(net)
    shares = [list(share) for _, share in groupby(waiting, key=lambda cell: cell.shared)]
    run_share = partial(_run_share, place, options.threads, results)
    if options.workers == 1:
        for share in shares:
            run_share(share)
        return
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        for _ in pool.map(run_share, shares):
            pass


def _run_share(place: Place, threads: int, results: Results, share: list[Cell]) -> None:
    torch.set_num_threads(threads)
    for cell in share:
        row = experiment_at(place).run(cell)
        results.add(row)
        print(f"{cell}: {row['top1']:.1%} in {row['wall_s']} s", flush=True)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=PRESETS, default="cpu", help="smoke: what --smoke runs")
    parser.add_argument("--data", default=str(data_root(None)), help="folder of cifar-100-python, or 'noise'")
    parser.add_argument("--cache", type=Path, default=CACHE, help="base networks")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--workers", type=int, default=1, help="processes; cells do not depend on each other")
    parser.add_argument("--threads", type=int, default=1, help="of each process")


BENCHMARK = Benchmark(
    name="adapt",
    purpose="ADaPT on subsets of CIFAR-100: what pruning with the data in view brings",
    takes="hours (--preset trained, deeper, cpu) to days (full); needs CIFAR-100",
    key=[field.name for field in fields(Cell)],
    run=run,
    page=page,
    options=add_options,
    smoke="--preset smoke --data noise",
)
