"""ADaPT's experiment: networks x subsets of CIFAR-100 x levels x arms x criteria x seeds.

    python -m benchmarks.adapt --preset smoke               a minute on one core: does it run
    python -m benchmarks.adapt --preset cpu --workers 2     scaled down; 143 minutes of one thread in all, half of
                                                            that with two workers, base networks on top
    python -m benchmarks.adapt --preset trained --workers 2 ResNet-8 from a base trained for 30 epochs: as long again
    python -m benchmarks.adapt --preset deeper --workers 2  ResNet-20 from a base trained for 12 epochs: shorter
    python -m benchmarks.adapt --preset full                the paper's grid; meant for --device cuda

Every finished cell is a line of `adapt_<preset>.jsonl` in `--out`; cells already there are not run again, so a
broken run goes on where it stopped. The base networks are kept in `--cache`, outside the checkout. At the end
`adapt_<preset>.md` and `.json` hold the tables (`benchmarks/adapt_report.py`).
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, replace
from functools import lru_cache, partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

from benchmarks.accuracy.adapt_protocol import RECIPES, Adapt, Outcome, Pictures, Split
from benchmarks.adapt_base import CACHE, base_network, load_pictures
from benchmarks.adapt_controls import CONTROLS
from benchmarks.adapt_grid import PRESETS, Cell, Preset, cells
from benchmarks.adapt_report import write_report
from benchmarks.rows import append_row, read_rows, take_up
from fedge.data.cifar100_classes import SUBSETS
from fedge.paths import data_root
from fedge.training.macs import count_macs

RESULTS = Path(__file__).parent / "results"


class Experiment:
    """Runs cells; keeps the base networks, the fine-tuned one and the agnostic one last used at hand."""

    def __init__(self, preset: Preset, pictures: Pictures, train_count: int, cache: Path) -> None:
        self.preset, self.pictures, self.cache = preset, pictures, cache
        self.train_count = train_count
        self.base = lru_cache(self._base)
        self._split = lru_cache(self._split)
        self._tuned = lru_cache(maxsize=1)(self._tuned)
        self._agnostic = lru_cache(maxsize=1)(self._agnostic)

    def run(self, cell: Cell) -> dict:
        """The cell and what came of it: test top-1, best epoch, parameters and MACs left, seconds."""
        started_s = time.perf_counter()
        protocol = self._protocol(cell.net, cell.subset, cell.seed)
        if cell.arm == "unpruned":
            outcome = Outcome(protocol.base, None, 0)
        elif cell.arm == "agnostic":
            outcome = self._agnostic(cell.net, cell.level, cell.criterion, cell.seed)
        else:
            tuned = self._tuned(cell.net, cell.subset, cell.seed)
            criterion = CONTROLS.get(cell.criterion, cell.criterion)
            outcome = getattr(protocol, cell.arm)(tuned, cell.level, criterion)
        return {
            **asdict(cell),
            "top1": protocol.top1(outcome.model),
            "epoch": outcome.epoch,
            "parameters": sum(p.numel() for p in outcome.model.parameters()),
            "macs": count_macs(outcome.model, tuple(self.pictures.x_NCHW.shape[1:])).forward,
            "wall_s": round(time.perf_counter() - started_s, 1),
        }

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

    def _tuned(self, net: str, subset: str, seed: int) -> nn.Module:
        return self._protocol(net, subset, seed).fine_tune()

    def _agnostic(self, net: str, level: float, criterion: str, seed: int) -> Outcome:
        return self._protocol(net, None, seed).agnostic(level, criterion)

    def _split(self, subset: str | None) -> Split:
        """The authors' split, with at most `pictures_per_class` of each class: 4 to train for 1 to validate."""
        labels_N, cap = self.pictures.y_N, self.preset.pictures_per_class
        classes = None if subset is None else SUBSETS[subset]
        split = Split.of_classes(labels_N, self.train_count, classes)
        train, validation = (
            torch.cat([rows[labels_N[rows] == label][:most] for label in labels_N[rows].unique()])
            for rows, most in ((split.train, cap * 4 // 5), (split.validation, cap // 5))
        )
        return replace(split, train=train, validation=validation)


@lru_cache
def experiment_of(preset: str, data: Path, cache: Path, device: str) -> Experiment:
    """The experiment, made once per process."""
    return Experiment(PRESETS[preset], *load_pictures(data, device), cache)


def main() -> None:
    arguments = _parse()
    preset = PRESETS[arguments.preset]
    path = arguments.out / f"adapt_{arguments.preset}.jsonl"
    done = {Cell(*(row[field.name] for field in fields(Cell))) for row in take_up(path)}
    waiting = [cell for cell in cells(preset) if cell not in done]
    if waiting:
        _run(waiting, arguments, path)
    print(write_report(preset, read_rows(path), path))


def _run(waiting: list[Cell], arguments: argparse.Namespace, path: Path) -> None:
    """Train the base networks that are missing, then the cells, those that share a network in one process."""
    here = (arguments.preset, arguments.data, arguments.cache, arguments.device)
    torch.set_num_threads(arguments.workers * arguments.threads)
    for net in dict.fromkeys(cell.net for cell in waiting):
        experiment_of(*here).base(net)
    shares = [list(share) for _, share in groupby(waiting, key=lambda cell: cell.shared)]
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        for _ in pool.map(partial(_run_share, here, arguments.threads, path), shares):
            pass


def _run_share(here: tuple[str, Path, Path, str], threads: int, path: Path, share: list[Cell]) -> None:
    torch.set_num_threads(threads)
    for cell in share:
        row = experiment_of(*here).run(cell)
        append_row(path, row)
        print(f"{cell}: {row['top1']:.1%} in {row['wall_s']} s", flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapt", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="smoke")
    parser.add_argument("--data", type=Path, default=data_root(None), help="folder of cifar-100-python")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=CACHE, help="base networks")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--workers", type=int, default=1, help="processes; cells do not depend on each other")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    return parser.parse_args()


if __name__ == "__main__":
    main()
