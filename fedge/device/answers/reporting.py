"""What a device says of its round: evaluated, counted and named by the device, whatever the program says."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from flwr.app import Message

from fedge.device.answers.factory import FactoryAnswers
from fedge.device.answers.serving import Serving
from fedge.device.early_exits.figures import exit_figures
from fedge.device.pruning import Cutter
from fedge.device.round import Round
from fedge.device.trainer import Trainer
from fedge.errors import UserError
from fedge.prepare import Prepared
from fedge.privacy.egress import checked_report
from fedge.protocol import DeviceFailure, RoundReport, Status, finite
from fedge.protocol.figures import Figures
from fedge.protocol.report import MOST_EPOCHS, NONE, coded
from fedge.training.loop import FLOAT_BIT_OPERATIONS
from fedge.training.stats import Evaluation, TrainStats


def report_of(
    round: Round, cutter: Cutter, trainer: Trainer, wall_s: float, own: Mapping[str, float]
) -> RoundReport:
    """Evaluate the network that serves on the client's validation and test data and add up what the round cost; `own`
    figures go along."""
    total = trainer.total
    serving = Serving.after(round)
    model, validation = serving.model, serving.validation
    test = round.evaluate("test", model)
    round.served = serving.served
    answers = figures_of(round.prepared, total, _factory_answers(round), validation, test)
    watched = 0 if round.intake is None else round.intake.watch.macs  # to decide what to keep of a stream
    answers["macs_filter"] += watched
    looked = watched + round.prior_macs
    answers["bit_operations"] += FLOAT_BIT_OPERATIONS * looked
    return RoundReport(
        round=round.plan.round,
        client=round.client,
        macs_done=total.macs_done + cutter.macs + looked,
        **answers | _losses(round, trainer.epochs),
        served=None if serving.served is None else serving.served.of,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        parameters_dense=round.prepared.parameters,
        level_tries=cutter.tries,
        **(round.intake.report() if round.intake is not None else {}),
        **exit_figures(round),
        **_memory_figures(trainer),
        **coded(**_words(cutter, trainer)),
        wall_s=wall_s,
        own=dict(own),
    )


def figures_of(
    prepared: Prepared, stats: TrainStats, factory: FactoryAnswers, validation: Evaluation, test: Evaluation
) -> dict[str, Any]:
    """Report fields of what was trained on and what the trained network answers beside the factory model; of a device
    and of a yardstick's client alike."""
    return {
        "samples_seen": stats.samples_seen,
        "samples_kept": stats.samples_kept,
        "macs_dense": stats.samples_seen * prepared.macs_training,
        "macs_filter": stats.macs_filter,
        "bit_operations": stats.bit_operations,
        "train_loss": finite(stats.loss),
        "validation_correct": validation.correct,
        "validation_count": validation.count,
        "test_correct": test.correct,
        "test_count": test.count,
        **factory.tallies(test.right_N, test.error_N),
        **_figures_of_task(prepared, validation, test),
    }


def require_report(said: object, message: Message, figures: Figures) -> None:
    """Hold what a program returns against the egress gate's schema, before anything is kept of the round.

    UserError where it is no report, DeviceFailure where the gate would not let it leave.
    """
    if not isinstance(said, RoundReport):
        raise UserError(
            f"the client program returned {type(said).__name__} instead of a report: end it with "
            "`return device.report()`"
        )
    if unknown := sorted(vars(said).keys() - RoundReport.model_fields.keys()):
        raise DeviceFailure(
            Status.BLOCKED_FIELD, f"the report has fields that no report has: {', '.join(unknown)}"
        )
    checked_report(said.reply_to(message), message, figures)


def _losses(round: Round, epochs: Sequence[TrainStats]) -> dict[str, Any]:
    """Of the epochs that kept as many samples as may be told of, or none; no mean where there were others only."""
    told = [stats for stats in epochs if not 0 < stats.samples_kept < round.simulated.least_count]
    total, most = sum(told, start=TrainStats()), min(round.plan.training.epochs, MOST_EPOCHS)
    few = not total.samples_kept and len(told) < len(epochs)
    losses = [finite(stats.loss) for stats in told if stats.samples_seen]
    return {"train_loss": None if few else finite(total.loss), "epoch_loss": evenly(losses, most)}


def evenly(losses: Sequence[float], most: int) -> list[float]:
    """All of them, or `most` from the first to the last, as far from one another as can be."""
    if len(losses) <= most:
        return list(losses)
    last = len(losses) - 1
    return (
        [losses[round(index * last / max(1, most - 1))] for index in range(most)]
        if most > 1
        else [losses[-1]]
    )


def _memory_figures(trainer: Trainer) -> dict[str, Any]:
    fit = trainer.fit
    if fit is None:  # a program that did not train
        return {}
    return {
        "batch_size": fit.batch_size,
        "memory_bytes": fit.need_bytes,
        "memory_asked_bytes": fit.asked_bytes,
        "memory_limit_bytes": fit.have_bytes,
    }


def _words(cutter: Cutter, trainer: Trainer) -> dict[str, str]:
    """What really ran; of losses only those that are not what classes are trained by."""
    words = {"criterion": cutter.ran, **trainer.ran}
    return {
        field: word for field, word in words.items() if field != "loss" or word not in (NONE, "cross_entropy")
    }


def _figures_of_task(prepared: Prepared, validation: Evaluation, test: Evaluation) -> dict[str, Any]:
    """Report fields of labels and of numbers; nothing of classes."""
    match prepared.task:
        case "labels":
            return {"decisions": prepared.num_classes}
        case "numbers":
            return {"validation_error_sum": _sum(validation), "test_error_sum": _sum(test)}
    return {}


def _sum(evaluation: Evaluation) -> float:
    if not math.isfinite(evaluation.error_sum):
        raise DeviceFailure(Status.DIVERGED, "the network's answers are no numbers any more")
    return evaluation.error_sum


def _factory_answers(round: Round) -> FactoryAnswers:
    """Asked once and kept in the device's state, as neither the factory model nor the shard changes."""
    answers = FactoryAnswers.kept(round.factory, round.own_shard.count("test"), round.prepared.task)
    if answers is None:
        model = round.prepared.factory_model().to(round.torch_device)
        answers = FactoryAnswers.asked(partial(round.evaluated, "test", model), round.own_shard)
        round.factory = answers.tensors()
    return answers
