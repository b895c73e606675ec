"""What a device does to its exits around their training: before it the person's prior, after it the thresholds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from fedge.data.shard import Batch
from fedge.data.transform import Transform
from fedge.device.adaptation.prior import estimated_prior
from fedge.device.early_exits.labels import known_labels, withheld
from fedge.device.local import EVALUATION_BATCH
from fedge.device.memory.fitting import Fit
from fedge.device.methods import MakeOptimizer, made_for
from fedge.device.round import Round
from fedge.errors import UserError
from fedge.scenario.methods.exits import Exits
from fedge.seeding import derive_seed
from fedge.training.exits.leaving import Judged, chosen_thresholds, judged
from fedge.training.exits.network import ExitNetwork
from fedge.training.label_prior.em import log_ratio
from fedge.training.loop import FLOAT_BIT_OPERATIONS
from fedge.training.memory_format import fast_order
from fedge.training.stats import TrainStats

if TYPE_CHECKING:
    from fedge.device.trainer import Trainer

_LEAST_SHIFT = -30.0
"""Of a logit: a class that this person never meets."""


@dataclass(frozen=True)
class Personal:
    """The exits of a round's network, and what `[training.exits]` wants of them."""

    round: Round
    exits: Exits
    model: ExitNetwork

    @property
    def trains(self) -> bool:
        """Whether exits are trained, or stay as they were shipped."""
        return self.exits.teach != "none"

    @property
    def retrains(self) -> bool:
        """Whether the whole network is trained first, as it was cut in this round."""
        return bool(self.exits.retrain_epochs) and self.round.course.cut == self.round.plan.round

    def prepare(self, trainer: "Trainer", make: MakeOptimizer, transform: Transform | None) -> Fit | None:
        """The person's prior, and how far a training pass of the exits goes.

        Between the two the whole network is trained, where it has just been cut and is to be; returns what that asked
        of memory.
        """
        model, fit = self.model, None
        looked = self.find_prior()  # before the trunk learns it: what is corrected is corrected once
        trainer.epochs.append(looked)
        if self.retrains:
            model.thaw_trunk()
            model.whole = True
            trainer.fit_to_memory(made_for(model, make), may_prune=False)
            fit, epochs = trainer.fit, self.exits.retrain_epochs
            local, optimizer = self.round.local, made_for(model, make)
            how: dict[str, Any] = {
                "task": local.whole_task,
                "transform": transform,
                "last": epochs,
                "of": epochs,
            }
            trainer.take(local.epochs(model, optimizer, "retrain", **how))
            model.freeze_trunk()
        model.whole = self.exits.needs_teacher
        return fit

    def train(self, trainer: "Trainer", epochs: Iterator[TrainStats]) -> None:
        """Run the local epochs; nothing where exits stay as they were shipped."""
        if self.trains:
            with self.model.answering_among(self.round.answers):
                trainer.take(epochs)

    def find_prior(self) -> TrainStats:
        """How often this person meets each class, found once, as `training.prior` finds it. Returns what it cost."""
        if self.exits.prior == "none" or bool(self.model.rule.knows_prior):
            return TrainStats()
        found, macs = estimated_prior(self.round, None)
        ratio_C = log_ratio(found.estimate_C, found.factory.share_C).clamp(min=_LEAST_SHIFT)
        rule = self.model.rule
        rule.log_shift_C.copy_(found.factory.temperature * ratio_C)
        rule.knows_prior.fill_(1)
        return TrainStats(macs_forward=macs, bit_operations=FLOAT_BIT_OPERATIONS * macs)

    def choose_thresholds(self) -> None:
        """The settings' own, or by the validation samples as far as their labels are known."""
        thresholds_K = self.model.rule.thresholds_K
        if self.exits.threshold is not None:
            thresholds_K.fill_(self.exits.threshold)
            return
        chosen_K = chosen_thresholds(
            self.judged("validation"), accuracy=self.exits.accuracy, slack=self.exits.slack
        )
        thresholds_K.copy_(chosen_K)

    def judged(self, split: str) -> Judged:
        """What every exit says to one part of the shard: to train and validation samples as far as labels are known."""
        with self.model.answering_among(self.round.answers):
            return judged(self.model, self._batches(split))

    def _batches(self, split: str) -> Iterator[Batch]:
        round = self.round
        order = fast_order(self.model, EVALUATION_BATCH, round.prepared.input_shape)

        def told(drawn: Callable[[np.ndarray], None] | None) -> Iterator[Batch]:
            return round.own_shard.batches(
                split, EVALUATION_BATCH, order=order, device=round.torch_device, drawn=drawn
            )

        if split == "test":
            return told(None)
        seed = derive_seed(round.simulated.seed, round.client, "labelled", split)
        return withheld(told, known_labels(round.own_shard.count(split), self.exits.known, seed))


def personal_of(round: Round) -> Personal | None:
    """None where the settings give the network no exits."""
    exits, model = round.training.exits, round.network.model
    return None if exits is None else Personal(round, exits, exit_network(model))


def exit_network(model: nn.Module) -> ExitNetwork:
    """`model`, which must be one."""
    if not isinstance(model, ExitNetwork):
        raise UserError(
            "training.exits: device.model is no network with exits any more: change its weights only"
        )
    return model


def require_none_beside(*methods: object) -> None:
    """UserError where a program of one's own brings a method or a loss to train exits by."""
    if brought := [type(method).__name__ for method in methods if method is not None]:
        raise UserError(
            f"device.train: a {brought[0]} came, and training.exits trains exits on a trunk that stands still, without "
            "filter, error maps, quantization or another loss: leave it or training.exits out"
        )
