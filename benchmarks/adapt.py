"""ADaPT's experiment: networks x subsets of CIFAR-100 x levels x arms x criteria x seeds.

    python -m benchmarks.adapt --preset smoke       a minute on one core: does it run
    python -m benchmarks.adapt --preset cpu         about an hour on two cores, scaled down as the report says
    python -m benchmarks.adapt --preset full        the paper's grid; meant for --device cuda

Every finished cell is a line of `adapt_<preset>.jsonl` in `--out`; cells already there are not run again, so a
broken run goes on where it stopped. The base networks are kept in `--cache`, outside the checkout. At the end
`adapt_<preset>.md` and `.json` hold the tables (`benchmarks/adapt_report.py`).
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path

import torch
from torch import nn

from benchmarks.adapt_base import base_network
from benchmarks.adapt_report import write_report
from fedge.data.cifar100_classes import SUBSETS
from fedge.data.datasets import load_dataset
from fedge.data.facts import default_root
from fedge.training.adapt import LEVELS, RECIPES, Adapt, Budget, Outcome, Pictures, Split
from fedge.training.macs import count_macs

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What is run. `criteria` maps each arm to the criteria it is run with; `base_epochs` each net to its own."""

    base_epochs: dict[str, int]
    subsets: tuple[str, ...]
    levels: tuple[float, ...]
    criteria: dict[str, tuple[str, ...]]
    seeds: int
    budget: Budget
    pictures_per_class: int = 500  # that fine-tuning and retraining may use, of 500; the base has them all


PRESETS = {
    "smoke": Preset(
        base_epochs={"resnet8": 0},
        subsets=("aquatic",),
        levels=(0.5,),
        criteria={"aware": ("l1", "taylor"), "selection": ("l1",), "agnostic": ("l1",)},
        seeds=1,
        budget=Budget(finetune=1, retrain=1, agnostic=1),
        pictures_per_class=50,
    ),
    "cpu": Preset(
        base_epochs={"resnet8": 10},
        subsets=("aquatic", "indoor"),
        levels=(0.5, 0.8),
        criteria={
            "aware": ("l1", "taylor", "activation", "random"),
            "selection": ("l1", "taylor"),
            "agnostic": ("l1",),
        },
        seeds=2,
        budget=Budget(finetune=1, retrain=4, agnostic=2),
        pictures_per_class=250,
    ),
    "full": Preset(
        base_epochs={"alexnet": 30, "resnet20": 30, "mobilenet_v2": 30, "squeezenet": 30},
        subsets=tuple(SUBSETS),
        levels=LEVELS,
        criteria={
            "aware": ("l1", "taylor", "activation", "random"),
            "selection": ("l1", "taylor", "activation"),
            "agnostic": ("l1", "taylor"),
        },
        seeds=5,
        budget=Budget(),
    ),
}


@dataclass(frozen=True)
class Cell:
    """One row of the results. The agnostic arm's cells of one network, level and seed share their retraining."""

    net: str
    arm: str  # unpruned, or one of ADaPT's three
    criterion: str
    level: float
    subset: str
    seed: int


class Experiment:
    """Runs cells; keeps the base networks, the fine-tuned ones and the last agnostic one at hand."""

    def __init__(self, preset: Preset, pictures: Pictures, train_count: int, cache: Path) -> None:
        self.preset, self.pictures, self.cache = preset, pictures, cache
        self.train_count = train_count
        self._split = lru_cache(self._split)
        self._base = lru_cache(self._base)
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
            outcome = getattr(protocol, cell.arm)(tuned, cell.level, cell.criterion)
        return {
            **asdict(cell),
            "top1": protocol.top1(outcome.model),
            "epoch": outcome.epoch,
            "parameters": sum(p.numel() for p in outcome.model.parameters()),
            "macs": count_macs(outcome.model, tuple(self.pictures.x_NCHW.shape[1:])).forward,
            "wall_s": round(time.perf_counter() - started_s, 1),
        }

    def _protocol(self, net: str, subset: str, seed: int) -> Adapt:
        return Adapt(
            base=self._base(net),
            pictures=self.pictures,
            whole=self._split(None),
            subset=self._split(SUBSETS[subset]),
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
        return self._protocol(net, self.preset.subsets[0], seed).agnostic(level, criterion)

    def _split(self, classes: frozenset[int] | None) -> Split:
        """The authors' split, with at most `pictures_per_class` of each class: 4 to train for 1 to validate."""
        labels_N, cap = self.pictures.y_N, self.preset.pictures_per_class
        split = Split.of_classes(labels_N, self.train_count, classes)
        train, validation = (
            torch.cat([rows[labels_N[rows] == label][:most] for label in labels_N[rows].unique()])
            for rows, most in ((split.train, cap * 4 // 5), (split.validation, cap // 5))
        )
        return replace(split, train=train, validation=validation)


def cells(preset: Preset) -> Iterator[Cell]:
    """All cells of the preset; a whole seed before the next, so that a run cut short is still a comparison."""
    for net in preset.base_epochs:
        yield from (Cell(net, "unpruned", "none", 0.0, subset, 0) for subset in preset.subsets)
        for seed in range(preset.seeds):
            yield from (
                Cell(net, arm, criterion, level, subset, seed)
                for subset, level, arm in product(preset.subsets, preset.levels, ("aware", "selection"))
                for criterion in preset.criteria[arm]
            )
            yield from (
                Cell(net, "agnostic", criterion, level, subset, seed)
                for level, criterion, subset in product(
                    preset.levels, preset.criteria["agnostic"], preset.subsets
                )
            )


def main() -> None:
    arguments = _parse()
    torch.set_num_threads(arguments.threads)
    preset = PRESETS[arguments.preset]
    path = arguments.out / f"adapt_{arguments.preset}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read_rows(path)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))  # without a line that a crash cut short
    done = {Cell(*(row[f] for f in Cell.__dataclass_fields__)) for row in rows}
    waiting = [cell for cell in cells(preset) if cell not in done]
    if waiting:
        data = load_dataset("cifar100", arguments.data)
        pictures = Pictures(torch.from_numpy(data.x), torch.from_numpy(data.y), arguments.device)
        experiment = Experiment(preset, pictures, data.train_count, arguments.cache)
        for number, cell in enumerate(waiting, start=1):
            row = experiment.run(cell)
            with path.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(f"{number}/{len(waiting)} {cell}: {row['top1']:.1%} in {row['wall_s']} s", flush=True)
    print(write_report(preset, read_rows(path), path))


def read_rows(path: Path) -> list[dict]:
    """The finished cells; a last line cut short by a crash is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapt", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="smoke")
    parser.add_argument("--data", type=Path, default=default_root(), help="folder of cifar-100-python")
    parser.add_argument("--out", type=Path, default=RESULTS)
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "fedge" / "adapt"
    parser.add_argument("--cache", type=Path, default=cache, help="base networks")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
