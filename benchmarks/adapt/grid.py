"""Which cells the ADaPT benchmark runs: networks x subsets of CIFAR-100 x levels x arms x criteria x seeds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from benchmarks.adapt.controls import CONTROLS
from benchmarks.adapt.protocol import Budget
from fedge.data.known.cifar100_classes import SUBSETS
from fedge.training.pruning.level_search import LEVELS

Criteria = Mapping[str, tuple[str, ...]]  # of each arm


@dataclass(frozen=True)
class Cell:
    """One row of the results."""

    preset: str
    net: str
    arm: str  # unpruned, or one of ADaPT's three
    criterion: str
    level: float
    subset: str
    seed: int

    @property
    def shared(self) -> tuple:
        """What this cell has in common with those that it shares a costly network with.

        For the agnostic arm that is the network retrained on all classes, for the others the one fine-tuned on the
        subset.
        """
        if self.arm == "agnostic":
            return self.arm, self.net, self.level, self.criterion, self.seed
        return self.net, self.subset, self.seed


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every net on every subset at every level, in each arm by the criteria named for it, with `seeds` seeds."""

    nets: tuple[str, ...]
    subsets: tuple[str, ...]
    levels: tuple[float, ...]
    criteria: Criteria
    seeds: int

    def cells(self, preset: str, seed: int) -> Iterator[Cell]:
        """All of one seed."""
        for net, subset, level in product(self.nets, self.subsets, self.levels):
            for arm, criteria in self.criteria.items():
                yield from (Cell(preset, net, arm, criterion, level, subset, seed) for criterion in criteria)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What is run, and for how long. `base_epochs` says how long each net's M_D is trained."""

    base_epochs: dict[str, int]
    grids: tuple[Grid, ...]
    budget: Budget
    pictures_per_class: int = 500  # that fine-tuning and retraining may use, of 500; the base has them all


def cells(name: str) -> list[Cell]:
    """All cells of the preset of that name; seed by seed, so that a run cut short is still a comparison."""
    preset = PRESETS[name]
    unpruned = {
        Cell(name, net, "unpruned", "none", 0.0, subset, 0): None
        for grid in preset.grids
        for net, subset in product(grid.nets, grid.subsets)
    }
    chosen = list(unpruned)
    for seed in range(max(grid.seeds for grid in preset.grids)):
        of_seed = [cell for grid in preset.grids if seed < grid.seeds for cell in grid.cells(name, seed)]
        chosen += [cell for cell in of_seed if cell.arm != "agnostic"]
        agnostic = (cell for cell in of_seed if cell.arm == "agnostic")
        chosen += sorted(
            agnostic, key=lambda cell: cell.shared, reverse=True
        )  # those that share a network together
    return chosen


_CHOOSING = {"aware": ("l1", "taylor", "activation", "random"), "selection": ("l1", "taylor")}
_BREADTH = {"aware": ("l1", "taylor", "activation"), "selection": ("taylor",), "agnostic": ("l1",)}
_TWO = {"subsets": ("aquatic", "indoor"), "levels": (0.5, 0.8)}

PRESETS = {
    "smoke": Preset(
        base_epochs={"resnet8": 0},
        grids=(
            Grid(
                nets=("resnet8",),
                subsets=("aquatic",),
                levels=(0.5,),
                criteria={"aware": ("l1", "taylor"), "selection": ("l1",), "agnostic": ("l1",)},
                seeds=1,
            ),
        ),
        budget=Budget(finetune=1, retrain=1, agnostic=1),
        pictures_per_class=5,
    ),
    "cpu": Preset(
        base_epochs={"resnet8": 10, "alexnet": 12},
        grids=(
            Grid(nets=("resnet8",), **_TWO, criteria=_CHOOSING | {"agnostic": ("l1",)}, seeds=2),
            Grid(nets=("alexnet",), **_TWO, criteria=_CHOOSING | {"agnostic": ("l1", "taylor")}, seeds=2),
            Grid(nets=("resnet8", "alexnet"), **_TWO, criteria={"aware": tuple(CONTROLS)}, seeds=2),
            Grid(
                nets=("resnet8",), subsets=("outdoor", "natural"), levels=(0.8,), criteria=_BREADTH, seeds=2
            ),
            Grid(
                nets=("resnet8", "alexnet"),
                subsets=("aquatic", "indoor"),
                levels=(0.3,),
                criteria=_BREADTH,
                seeds=2,
            ),
        ),
        budget=Budget(finetune=1, retrain=4, agnostic=2),
        pictures_per_class=250,
    ),
    "trained": Preset(  # `cpu` in little, from a base that was trained three times as long
        base_epochs={"resnet8": 30},
        grids=(Grid(nets=("resnet8",), **_TWO, criteria=_BREADTH, seeds=2),),
        budget=Budget(finetune=1, retrain=4, agnostic=2),
        pictures_per_class=250,
    ),
    "deeper": Preset(  # the same on ResNet-20
        base_epochs={"resnet20": 12},
        grids=(Grid(nets=("resnet20",), **_TWO, criteria=_BREADTH, seeds=2),),
        budget=Budget(finetune=1, retrain=4, agnostic=2),
        pictures_per_class=250,
    ),
    "full": Preset(
        base_epochs={"alexnet": 30, "resnet20": 30, "mobilenet_v2": 30, "squeezenet": 30},
        grids=(
            Grid(
                nets=("alexnet", "resnet20", "mobilenet_v2", "squeezenet"),
                subsets=tuple(SUBSETS),
                levels=LEVELS,
                criteria={
                    "aware": ("l1", "taylor", "activation", "random"),
                    "selection": ("l1", "taylor", "activation"),
                    "agnostic": ("l1", "taylor"),
                },
                seeds=5,
            ),
        ),
        budget=Budget(),
    ),
}
