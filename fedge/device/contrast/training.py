"""A round of learning by contrast: without labels from what came of the stream, then the head on a few of them."""

import math
from typing import TYPE_CHECKING

from fedge.device.contrast.learner import Learner, learner_of
from fedge.device.contrast.memory import contrast_fit
from fedge.device.contrast.probe import probe
from fedge.device.memory.demand import state_copies
from fedge.device.memory.fitting import Fit
from fedge.device.methods import MakeOptimizer, made_for, optimizer_word, score_word
from fedge.protocol import DeviceFailure, Status
from fedge.protocol.report import CONTRAST, OWN
from fedge.scenario.methods.contrast import Contrast
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.stats import TrainStats

if TYPE_CHECKING:
    from fedge.device.trainer import Trainer


def learn_by_contrast(
    trainer: "Trainer", choice: Contrast, make: MakeOptimizer, error_maps: ErrorMapPruner | None
) -> Learner:
    """Without labels from what came of the stream, then the head on a few of them."""
    round, model = trainer.round, trainer.round.network.model
    learner = learner_of(round, choice)
    with round.uncounted():
        with learner.projecting():
            optimizer = made_for(model, make)
        trainer.copies = state_copies(optimizer)
        trainer.fit = _fit(trainer, choice)
        with learner.projecting():
            trainer.say(
                error_maps=score_word(error_maps),
                optimizer=optimizer_word(optimizer),
                what=round.training.what if isinstance(round.training.what, str) else OWN,
                loss=CONTRAST,
            )
            stats = learner.learn(optimizer, error_maps, trainer.pace, trainer.tell)
        if stats.samples_kept and not math.isfinite(stats.loss):
            raise DeviceFailure(Status.DIVERGED, f"loss {stats.loss} in learning by contrast")
        trainer.running = TrainStats()
        trainer.epochs += [stats, probe(round, choice.labels, choice.buffer)]
    round.network.accept()
    return learner


def _fit(trainer: "Trainer", choice: Contrast) -> Fit:
    """DeviceFailure where the buffer and its two views do not fit."""
    round = trainer.round
    decided = contrast_fit(
        round.network.model,
        round.training,
        choice,
        round.plan.limits,
        round.simulated.profile,
        shape=round.prepared.input_shape,
        classes=round.prepared.num_classes,
        copies=trainer.copies,
        who=trainer.who,
    )
    if not decided.fits:
        raise DeviceFailure(Status.DOES_NOT_FIT, decided.line)
    return decided
