"""One factory model and its five groups of devices, as features: made once, measured many times.

A group is the devices that see one of ADaPT's subsets of CIFAR-100, their rows taken together. Shapes: N rows, F
features, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from fedge.data.shard import Shard
from fedge.data.unlabelled import pictures
from fedge.network.shipped import factory_prior, shipped_features, write_shipped
from fedge.prepare import Prepared, prepare
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario
from fedge.scenario.training import Training
from fedge.training.features import Shipped, Trunk

SUBSETS = ("aquatic", "indoor", "outdoor", "natural", "random")
_BATCH = 256


@dataclass(frozen=True, eq=False)
class Group:
    """The rows of one subset's devices."""

    name: str
    shards: tuple[Shard, ...]

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """Of the training rows."""
        return tuple(sorted({c for shard in self.shards for c in shard.own_classes}))

    def rows(self, split: str) -> tuple[Tensor, Tensor]:
        """x_NCHW and y_N of one part, all of them in memory."""
        parts = [batch for shard in self.shards for batch in shard.batches(split, _BATCH)]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    def features(self, trunk: Trunk, split: str) -> tuple[Tensor, Tensor]:
        """Of one part [N, F], and the labels [N]."""
        made = [trunk.features_of(pictures(shard, [split], _BATCH)) for shard in self.shards]
        labels = [torch.from_numpy(shard.labels(split)).long() for shard in self.shards]
        return torch.cat(made), torch.cat(labels)


@dataclass(frozen=True, eq=False)
class World:
    """A factory model with what is shipped beside it, and the groups."""

    scenario: Scenario
    prepared: Prepared
    groups: tuple[Group, ...]

    @classmethod
    def of(
        cls, name: str, number: int, trainings: Sequence[Training], changes: Sequence[str] = ()
    ) -> "World":
        """Of the scenario of that name with `data.seed` that number; prepared, or taken from the cache.

        Its clients are taken for five groups of as many each, the last few left out.
        """
        scenario = load_scenario(name, [f"data.seed={number}", *changes])
        prepared = prepare(scenario)
        folder = Path(prepared.folder)
        write_shipped(folder, trainings, prepared.factory_model, number)
        shards = [Shard.open(folder / "shards", client) for client in range(scenario.clients)]
        each = len(shards) // len(SUBSETS)
        groups = (
            Group(name, tuple(shards[index * each : (index + 1) * each]))
            for index, name in enumerate(SUBSETS)
        )
        return cls(scenario, prepared, tuple(groups))

    def trunk(self, model: nn.Module | None = None) -> Trunk:
        """Of that network; None: of the factory model."""
        return Trunk.of(self.prepared.factory_model() if model is None else model, self.prepared.input_shape)

    @cached_property
    def factory_rows(self) -> Shard:
        """What the factory model was trained on."""
        return Shard.open(Path(self.prepared.folder) / "factory-shard", 0)

    @property
    def prior_C(self) -> Tensor:
        """The factory's."""
        return factory_prior(Path(self.prepared.folder)).share_C

    def shipped(self, training: Training) -> Shipped:
        """What these settings draw features of."""
        return shipped_features(Path(self.prepared.folder), training)
