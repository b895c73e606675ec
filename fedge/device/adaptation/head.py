"""Training a device's head on features: its own, made once a round, or such as were shipped with the factory model.

    own         the training rows go through the trunk once, and every epoch is over the features that are kept
    generated   drawn of the factory's normal distributions, by the classes that the device has
    replay      drawn of the factory's stored features, likewise

Which classes, and how often: those of the device's training rows where `answers` is "own", each as often as another;
with `prior` "em" by the estimated shares. An epoch of drawn features is as long as one of the device's training rows.
Of a pruned trunk the shipped features are cut to the channels that are left. Leaving features out is exact; those
that stay were made by channels deeper inside, some of which are gone as well, so that what is drawn of them is the
factory trunk's, and not quite the pruned one's.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fedge.data.unlabelled import pictures
from fedge.device.memory.features import FORWARD_BATCH
from fedge.errors import UserError
from fedge.network.shipped import shipped_features
from fedge.training.batches import Batches
from fedge.training.features import Shipped, Trunk, drawn_epoch
from fedge.training.features.trunk import in_batches
from fedge.training.loop import FLOAT_BIT_OPERATIONS
from fedge.training.stats import TrainStats

if TYPE_CHECKING:
    from fedge.device.round import Round


class HeadTraining:
    """The mini-batches of one round's training of `head`."""

    def __init__(self, round: "Round") -> None:
        self._round = round
        self._trunk = Trunk.of(round.network.model, round.prepared.input_shape)
        self._looked_at = 0  # samples whose features were made since it was last told

    @property
    def head(self) -> nn.Module:
        """What is trained: the network's own layer."""
        return self._trunk.head

    def epoch(self, number: int) -> Batches:
        """Of local epoch `number`, from 0: features and classes."""
        round, batch_size = self._round, self._round.training.batch_size
        seed = round.seed("shuffle", number)
        if round.training.source == "own":
            features_NF, y_N = self._own
            return in_batches(features_NF, y_N, batch_size, seed, self._drawn)
        drawn = drawn_epoch(self._shipped, self._shares(), round.samples, batch_size, seed)
        return ((x_BF.to(round.torch_device), y_B.to(round.torch_device)) for x_BF, y_B in drawn)

    def made(self) -> TrainStats:
        """What making features has cost since this was last asked."""
        macs, self._looked_at = self._looked_at * self._trunk.macs, 0
        return TrainStats(macs_forward=macs, bit_operations=FLOAT_BIT_OPERATIONS * macs)

    def _drawn(self, rows_B: Tensor) -> None:
        if self._round.intake is not None:
            self._round.intake.drawn(rows_B.numpy())

    @cached_property
    def _own(self) -> tuple[Tensor, Tensor]:
        round = self._round
        rows = pictures(round.shard, ["train"], FORWARD_BATCH, device=round.torch_device)
        features_NF = self._trunk.features_of(rows)
        self._looked_at += len(features_NF)
        y_N = torch.from_numpy(round.shard.labels("train")).long()
        return features_NF, y_N.to(round.torch_device)

    @cached_property
    def _shipped(self) -> Shipped:
        round, trunk = self._round, self._trunk
        shipped, topology = (
            shipped_features(Path(round.prepared.folder), round.training),
            round.network.topology,
        )
        if topology is None:
            return shipped
        if topology.kept is None:
            raise UserError(
                f"training.source is {round.training.source!r}, and the topology record does not say which channels "
                "were kept (an earlier fedge wrote it), so that shipped features cannot be cut: start the run over"
            )
        kept = topology.kept.get(trunk.name)
        return shipped if kept is None else shipped.cut(kept.inputs)

    def _shares(self) -> Tensor:
        """How often each class is drawn [C], before they are made to sum to 1."""
        round, classes = self._round, self._round.answers
        prior = round.label_prior
        count = round.prepared.num_classes
        share_C = torch.ones(count, dtype=torch.float64) if prior is None else prior.estimate_C
        if classes is None:
            return share_C
        own_C = torch.zeros(count, dtype=torch.bool)
        own_C[list(classes)] = True
        return share_C.masked_fill(~own_C, 0.0)


def epochs_of(round: "Round", optimizer: torch.optim.Optimizer, **how: Any) -> Iterator[TrainStats]:
    """The planned local epochs: of the network or, where there is a source of features, of its head. how: as of
    `Local.epochs`."""
    local, model = round.local, round.network.model
    if round.training.source is None:
        yield from local.epochs(model, optimizer, "shuffle", **how)
        return
    head = HeadTraining(round)
    for stats in local.epochs(head.head, optimizer, "shuffle", epoch_of=head.epoch, **how):
        yield stats + head.made()
    round.head_was_trained()


def head_stays(round: "Round", *brought: object) -> bool:
    """Whether the head is trained on features, and the label prior has not moved enough for that. UserError for
    methods that a program brings and that want more of the network than its head."""
    training = round.training
    if training.source is None:
        return False
    if any(method is not None for method in brought):
        raise UserError(
            f"device.train: training.source is {training.source!r}, and features go through the head alone: leave "
            "instance_filter, error_maps, quantization and transform out"
        )
    prior, least = round.label_prior, training.adaptation.moved
    return prior is not None and least > 0 and prior.moved <= least
