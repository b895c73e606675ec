"""What is timed to learn a machine: networks cut to levels, with widths that differ at random from layer to layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedge.models import build
from fedge.seeding import derive_seed
from fedge.training.pruning.coupling import PINNED
from fedge.training.pruning.criteria import Evidence
from fedge.training.pruning.one_shot import LevelOutOfReachError, prune

NETWORKS: dict[str, tuple[int, int, int]] = {
    "lenet": (1, 28, 28),
    "resnet20": (3, 32, 32),
    "vgg11": (3, 32, 32),
    "har_cnn": (9, 1, 128),
}
"""Name -> [C, H, W] of a sample. Small and large, narrow and wide, of pictures and of signals."""
LEVELS = (0.0, 0.3, 0.5, 0.7, 0.9)
BATCHES = (8, 32, 128)
PRUNED = (0.25, 32)
"""keep and batch of the steps with error-map pruning, at the levels of PRUNED_LEVELS."""
PRUNED_LEVELS = (0.0, 0.5)
QUICK_LEVELS, QUICK_BATCHES = (0.0, 0.5, 0.9), (8, 32)
_SPREADS = (0.7, 0.35, 0.0)  # of the layers' log scores; less where a level is out of reach


@dataclass(frozen=True)
class Cell:
    """A network at a level on a batch. keep: of error maps, 1 without pruning them. seed: of the widths."""

    network: str
    level: float
    batch: int
    keep: float = 1.0
    seed: int = 0


def cells(*, quick: bool = False) -> list[Cell]:
    """What a fingerprint is learnt from; `quick`: less of it."""
    levels, batches = (QUICK_LEVELS, QUICK_BATCHES) if quick else (LEVELS, BATCHES)
    dense = [Cell(network, level, batch) for network in NETWORKS for level in levels for batch in batches]
    keep, batch = PRUNED
    return dense + [Cell(network, level, batch, keep) for network in NETWORKS for level in PRUNED_LEVELS]


def cut_network(name: str, level: float, input_shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """The network with `level` of its parameters cut, at random."""
    channels, height, width = input_shape
    model = build(name, num_classes=10, in_channels=channels, image_size=(height, width), seed=seed)
    cut_at_random(model, level, input_shape, derive_seed(seed, name, "widths"))
    return model


def cut_at_random(model: nn.Module, level: float, input_shape: Sequence[int], seed: int) -> None:
    """Cut `level` of the parameters, in place, by scores that favour some layers over others.

    LevelOutOfReachError where the floors stop the cut short of the level, even of layers that are cut alike.
    """
    for spread in _SPREADS:
        try:
            prune(
                model,
                level,
                example_input=torch.zeros(1, *input_shape),
                criterion=_UnevenScores(spread),
                seed=seed,
            )
        except LevelOutOfReachError:
            if spread == _SPREADS[-1]:
                raise
        else:
            return


@dataclass(frozen=True)
class _UnevenScores:
    """A criterion: uniform scores, times a factor of each layer, lognormal with `spread`."""

    spread: float

    def __call__(self, evidence: Evidence) -> Tensor:
        coupling, generator = evidence.coupling, evidence.generator
        score_U = torch.rand(coupling.units, generator=generator)
        factor_U = torch.ones(coupling.units)
        for name in coupling.producers(evidence.model):
            unit_O = coupling.unit_of_output[name]
            factor = torch.randn((), generator=generator).mul(self.spread).exp()
            factor_U[unit_O[unit_O != PINNED]] = factor
        return score_U * factor_U
