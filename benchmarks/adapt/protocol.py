"""ADaPT's protocol: how a network is fine-tuned, pruned and retrained on a subset, and what that is held against.

Rajagopal and Bouganis, "Now that I can see, I can improve", EDLCV at CVPR 2020, arXiv 2006.08554; subsets, split
rule and hyper-parameters as in the authors' public code. M_D is the network trained on all of D (CIFAR-100), D' a
subset of its classes; fine labels and the 100-way head stay as they are.

    aware      fine-tune M_D on D', prune it there, retrain on D'                            (data-aware, "DaPR")
    agnostic   prune M_D, retrain on D for n_f + n_r epochs, test on D'                      (their baseline)
    selection  as aware, but the units to cut are chosen on M_D with D in view               (ours)

The third arm differs from `aware` in nothing but the choice of channels, so aware - selection is what choosing by
the data brings, and selection - agnostic what retraining on it brings. The score is the test top-1 at the epoch,
after pruning, of best validation top-1. Here validation pictures are not augmented (theirs are), and top-1 counts
pictures (theirs averages over batches, which weighs the last, shorter one more).
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedge.data.augment import crop_flip
from fedge.errors import UserError
from fedge.seeding import derive_seed
from fedge.training.batches import Batches
from fedge.training.loop import evaluate, train
from fedge.training.pruning.criteria import CRITERIA, Criterion, Evidence
from fedge.training.pruning.one_shot import prune
from fedge.training.pruning.topology import Topology

ARMS = ("aware", "agnostic", "selection")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # the authors' normalisation
BATCH_SIZE = 128
MOMENTUM = 0.9


@dataclass(frozen=True)
class Recipe:
    """Learning rates of one network: fine-tuning, then retraining, which falls by `gamma` twice."""

    weight_decay: float
    gamma: float
    finetune_rate: float
    retrain_rate: float


RECIPES = {
    "alexnet": Recipe(5e-4, 0.1, 1e-4, 1e-3),
    "resnet8": Recipe(1e-4, 0.1, 1e-3, 1e-2),  # ours: the paper's begin at 20
    "resnet20": Recipe(1e-4, 0.1, 1e-3, 1e-2),
    "mobilenet_v2": Recipe(5e-4, 0.1, 1e-3, 1e-2),
    "squeezenet": Recipe(2e-4, 0.2, 8e-4, 2e-2),
}


@dataclass(frozen=True)
class Budget:
    """Epochs: n_f of fine-tuning on D', n_r of retraining on D'; the agnostic arm's on D, many times as large."""

    finetune: int = 5
    retrain: int = 25
    agnostic: int = 30

    def __post_init__(self) -> None:
        if self.finetune < 0 or min(self.retrain, self.agnostic) < 1:
            raise UserError(f"{self}: epochs of retraining must be at least 1, of fine-tuning at least 0")


@dataclass(frozen=True)
class Pictures:
    """uint8 pictures [N, C, H, W] and labels [N], with the normalisation that batches get."""

    x_NCHW: Tensor
    y_N: Tensor
    device: str = "cpu"

    def batches(
        self, index_N: Tensor, *, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y) of these rows; with a generator shuffled, cropped and flipped, without as they lie."""
        if generator is not None:
            index_N = index_N[torch.randperm(len(index_N), generator=generator)]
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
        for index_B in index_N.split(BATCH_SIZE):
            x_BCHW = self.x_NCHW[index_B]
            if generator is not None:
                x_BCHW = crop_flip(x_BCHW, generator)
            x_BCHW = ((x_BCHW / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            yield x_BCHW.to(self.device), self.y_N[index_B].to(self.device)


@dataclass(frozen=True)
class Split:
    """Row indices of the training, validation and test pictures."""

    train: Tensor
    validation: Tensor
    test: Tensor

    @classmethod
    def of_classes(cls, y_N: Tensor, train_count: int, classes: frozenset[int] | None = None) -> "Split":
        """The authors' rule: of each class's training rows, in file order, the first 80 % train, the rest validate.

        The first `train_count` rows of `y_N` are the official training split, the others test. `classes` None
        means all.
        """
        chosen = sorted(set(y_N.tolist()) if classes is None else classes)
        parts = []
        for label in chosen:
            rows = (y_N[:train_count] == label).nonzero().flatten()
            if not len(rows):
                raise UserError(f"class {label} has no training picture; take classes that the data set has")
            parts.append(rows.tensor_split([len(rows) * 4 // 5]))
        test = torch.isin(y_N[train_count:], torch.tensor(chosen)).nonzero().flatten() + train_count
        train_rows, validation_rows = (torch.cat(part) for part in zip(*parts, strict=True))
        return cls(train_rows, validation_rows, test)


@dataclass(frozen=True)
class Outcome:
    """A pruned and retrained network, and the retraining epoch (from 0) of best validation that it is from."""

    model: nn.Module
    topology: Topology
    epoch: int


@dataclass(frozen=True)
class Adapt:
    """The three arms for one network, subset and seed. No method changes `base`; all take a `level` in 0 .. 1.

    `whole` and `subset` split D and D'. `evidence` is how many training pictures a criterion that looks at data
    gets to see, of D' or of D, alike in all arms; `round_to` is `prune`'s.
    """

    base: nn.Module
    pictures: Pictures
    whole: Split
    subset: Split
    recipe: Recipe
    budget: Budget
    seed: int = 0
    evidence: int = 1024
    round_to: int = 1

    def __post_init__(self) -> None:
        for name, split in (("whole", self.whole), ("subset", self.subset)):
            if not len(split.train) or not len(split.validation):
                raise UserError(
                    f"split {name!r} has {len(split.train)} training and {len(split.validation)} validation pictures; "
                    "the protocol needs at least one of each: take more pictures per class"
                )

    def fine_tune(self) -> nn.Module:
        """M_D after n_f epochs on D': what `aware` and `selection` start from, the same at every level."""
        model = copy.deepcopy(self.base)
        rates = [self.recipe.finetune_rate] * self.budget.finetune
        for _ in self._epochs(model, self.subset.train, rates, "finetune"):
            pass
        return model

    def aware(self, tuned: nn.Module, level: float, criterion: str | Criterion) -> Outcome:
        """Choose channels of the fine-tuned network with D' in view; retrain on D'."""
        return self._prune_and_retrain(tuned, level, criterion, self.subset, self._rates_on_subset())

    def selection(self, tuned: nn.Module, level: float, criterion: str) -> Outcome:
        """Cut the fine-tuned network where M_D would be cut with D in view; retrain on D'."""

        def as_seen_on_whole(evidence: Evidence) -> Tensor:
            base = copy.deepcopy(self.base).requires_grad_(True).eval()
            return CRITERIA[criterion](replace(evidence, model=base, batches=self._evidence(self.whole)))

        return self._prune_and_retrain(tuned, level, as_seen_on_whole, self.subset, self._rates_on_subset())

    def agnostic(self, level: float, criterion: str) -> Outcome:
        """Prune M_D with D in view; retrain on D. The same for every subset."""
        rates = retraining_rates(self.recipe, self.budget.agnostic)
        return self._prune_and_retrain(self.base, level, criterion, self.whole, rates)

    def top1(self, model: nn.Module) -> float:
        """Share of the test pictures of D' that `model` gets right, in 0 .. 1."""
        return evaluate(model, self.pictures.batches(self.subset.test)).accuracy

    def _prune_and_retrain(
        self, model: nn.Module, level: float, criterion: str | Criterion, split: Split, rates: list[float]
    ) -> Outcome:
        model = copy.deepcopy(model)
        topology = prune(
            model,
            level,
            example_input=next(self.pictures.batches(split.train[:1]))[0],
            criterion=criterion,
            round_to=self.round_to,
            batches=self._evidence(split),
            seed=self.seed,
        )
        model.to(memory_format=torch.channels_last)
        best_epoch, best_top1, best_state = 0, -1.0, {}
        for epoch in self._epochs(model, split.train, rates, "retrain"):
            top1 = evaluate(model, self.pictures.batches(split.validation)).accuracy
            if top1 > best_top1:
                best_epoch, best_top1, best_state = epoch, top1, copy.deepcopy(model.state_dict())
        model.load_state_dict(best_state)
        return Outcome(model, topology, best_epoch)

    def _rates_on_subset(self) -> list[float]:
        return retraining_rates(self.recipe, self.budget.retrain, before=self.budget.finetune)

    def _evidence(self, split: Split) -> Batches:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "evidence"))
        chosen = torch.randperm(len(split.train), generator=generator)[: self.evidence]
        return self.pictures.batches(split.train[chosen])

    def _epochs(self, model: nn.Module, rows_N: Tensor, rates: list[float], purpose: str) -> Iterator[int]:
        """Train one epoch per rate with a new optimizer, and yield after each."""
        optimizer = torch.optim.SGD(
            model.parameters(), lr=1.0, momentum=MOMENTUM, weight_decay=self.recipe.weight_decay
        )
        for epoch, rate in enumerate(rates):
            optimizer.param_groups[0]["lr"] = rate
            generator = torch.Generator().manual_seed(derive_seed(self.seed, purpose, epoch))
            train(model, self.pictures.batches(rows_N, generator=generator), optimizer=optimizer)
            yield epoch


def retraining_rates(recipe: Recipe, epochs: int, before: int = 0) -> list[float]:
    """The rate of each retraining epoch: it falls by `gamma` after every third of all epochs, 10 of 30.

    `before`: epochs of fine-tuning that came before and count among them.
    """
    third = math.ceil((before + epochs) / 3)
    return [recipe.retrain_rate * recipe.gamma ** (epoch // third) for epoch in range(epochs)]
