"""A device cuts its own network: by which ranking, to which level, and what looking at its data costs."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from fedge.data.shard import Batch
from fedge.device.budget.clock import own_spread
from fedge.device.level import Bounds, Ranking, find_level, remembered
from fedge.device.memory.demand import peak_bytes
from fedge.device.methods import criterion_word
from fedge.device.round import Round
from fedge.device.time.pricing import StepTime
from fedge.protocol.report import one_word
from fedge.training.exits.network import ExitNetwork
from fedge.training.macs import count_macs
from fedge.training.pruning.criteria import Criterion, macs_per_sample
from fedge.training.pruning.level_search import Found
from fedge.training.pruning.spare import spare_copy


class DrawnWhenLookedAt:
    """Batches that are drawn, and counted, each time that a criterion goes through them; not where it does not."""

    def __init__(self, draw: Callable[[], Iterator[Batch]]) -> None:
        self._draw = draw

    def __iter__(self) -> Iterator[Batch]:
        return self._draw()


class Cutter:
    """Cuts the round's network. `macs` is what ranking and searching cost, `tries` how many levels were tried."""

    def __init__(self, round: Round) -> None:
        self.round = round
        self.macs = 0
        self.tries = 0
        self._ran: set[str] = set()

    @property
    def ran(self) -> str:
        """The name of the criterion that really ranked."""
        return one_word(self._ran)

    def prune(self, criterion: Criterion | None, retrain: Callable[[nn.Module], float]) -> Found:
        """To the settings' level, or to the one found; `retrain` gives a network's accuracy after retraining."""
        round, training = self.round, self.round.training
        round.require_counted()
        if round.idle:
            return Found(0.0)
        with round.uncounted(), _all_exits(round.network.model):
            ranking = self._ranking(criterion)
            found = find_level(round.network.model, training.pruning, ranking, self._bounds(retrain))
            self.tries = found.tries
            self._cut(found.level, ranking)
        return found

    def _bounds(self, retrain: Callable[[nn.Module], float]) -> Bounds:
        """What a search holds networks against on this device."""
        round, simulated = self.round, self.round.simulated
        training, shape = round.training, round.prepared.input_shape

        def peak(model: nn.Module) -> int:
            return peak_bytes(
                model, training, round.batch_size, shape, task=round.task, samples=round.samples
            )

        return Bounds(
            batch_size=round.batch_size,
            memory_bytes=simulated.profile.memory_bytes,
            peak_bytes=peak,
            dense_macs=round.prepared.macs_training,
            step_s=StepTime(
                profile=simulated.profile,
                clock=simulated.clock,
                training=training,
                input_shape=shape,
                batch_size=round.batch_size,
                slowness=own_spread(simulated.clock, seed=simulated.seed, client=round.client),
                peak_bytes=lambda model: int(round.plan.limits.overhead * peak(model)),
            ),
            steps=-(-round.samples // round.batch_size) * training.epochs,
            accuracy=lambda model: round.evaluate("validation", model).accuracy,
            retrain=retrain,
        )

    def cut_further(self, level: float) -> None:
        """Cut the network as it stands so that it fits; ranked as the settings say."""
        with _all_exits(self.round.network.model):
            self._cut(level, self._ranking(None))

    def _ranking(self, criterion: Criterion | None) -> Ranking:
        """By a criterion of the program's own, else by the settings'."""
        known = self.round.methods.criterion if criterion is None else criterion
        word = criterion_word(known)
        self._ran.add(word)
        return Ranking(
            criterion=remembered(known),
            batches=lambda: DrawnWhenLookedAt(partial(self._ranking_batches, known)),
            example_input=torch.zeros(1, *self.round.prepared.input_shape),
            seed=self.round.seed("prune"),
            task=self.round.local.whole_task,
        )

    def _cut(self, level: float, ranking: Ranking) -> None:
        self.round.network.cut(
            level,
            example_input=ranking.example_input,
            criterion=ranking.criterion,
            batches=ranking.batches(),
            seed=ranking.seed,
            task=ranking.task,
            **self.round.training.pruning.cut,
        )
        self.round.course = replace(self.round.course, cut=self.round.plan.round)

    def _ranking_batches(self, criterion: Criterion) -> Iterator[Batch]:
        """Training data drawn for a criterion to look at; what that criterion computes on them is counted."""
        model = self.round.network.model
        whole = spare_copy(model).requires_grad_(
            True
        )  # as `prune` gives it to a criterion, whatever is frozen
        cost = macs_per_sample(criterion, count_macs(whole, self.round.prepared.input_shape))
        left = self.round.training.pruning.ranking_samples
        for x_BCHW, y_B in self.round.batches(model, "prune"):
            x_BCHW, y_B = x_BCHW[:left], y_B[:left]
            self.macs += cost * len(y_B)
            yield x_BCHW, y_B
            left -= len(y_B)
            if not left:
                return


def _all_exits(model: nn.Module) -> AbstractContextManager[None]:
    """Channels are ranked by what all exits make of them, and a cut is held against all that they say."""
    return model.telling_all() if isinstance(model, ExitNetwork) else nullcontext()
