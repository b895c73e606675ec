"""Which of its networks a device answers with: `training.serve`, decided by its own samples, and by no test sample.

    last          what the round has trained
    best          of the rounds' networks the one with the best figure on the validation samples, the later of equals
    never_worse   the same, as long as training helps; else the factory model. It helps where the network of the last
                  round has
                      on the validation samples no worse a figure than the factory model, and
                      a better one there than the factory model on training and validation samples together

The figure is the share of right answers, of labels all of them; of numbers the mean absolute error, where less is
better. The factory model has met none of these samples, so all of them can tell how good it is, and the few validation
samples, on which both are often without a fault, do not decide alone. A network that was chosen as the best of several
flatters itself, so it is the last that is held against it, which nobody chose. Without validation samples nothing has
helped. Training goes on from what the round has trained, whatever serves.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from fedge.device.adaptation.prior import LabelPrior
from fedge.device.network import rebuilt
from fedge.device.round import Round
from fedge.device.state import DeviceState, KeptNetwork, Served, StateFolder
from fedge.errors import UserError
from fedge.prepare import prepare
from fedge.protocol import DeviceFailure
from fedge.results.run_folder import SCENARIO
from fedge.scenario.file import read_scenario
from fedge.training.label_prior import CorrectedNetwork
from fedge.training.stats import Evaluation
from fedge.training.torch_device import generators_kept

_FACTORYS = KeptNetwork(None, {})


@dataclass(frozen=True)
class Serving:
    """`model` answers `validation` on the validation samples. served: for the state; None: as every round leaves it."""

    model: nn.Module
    validation: Evaluation
    served: Served | None = None

    @classmethod
    def after(cls, round: Round) -> "Serving":
        """Choose among what the round has trained, the best of the rounds before it, and the factory model."""
        now, serve = round.evaluate("validation", round.network.model), round.training.serve
        if serve == "last":
            return cls(round.network.model, now)
        model, then, served = _best(round, now)
        if serve == "best":
            return cls(model, then, served)
        factory = _built(round, _FACTORYS)
        before = round.evaluate("validation", factory)
        if helps(now, before, round.evaluate("train", factory)):
            return cls(model, then, served)
        return cls(factory, before, replace(served, of=0))


def _best(round: Round, now: Evaluation) -> tuple[nn.Module, Evaluation, Served]:
    """The trained network of the best figure, as if it served; `now` is what that of this round has answered."""
    this, held = round.plan.round, round.before.served
    if held is not None:
        model = _built(round, _best_of(round.before, held))
        then = round.evaluate("validation", model)
        if now.count and not figure(now) >= figure(then):
            return model, then, Served(held.best, held.best, _best_of(round.before, held))
    return round.network.model, now, Served(this, this)


def helps(now: Evaluation, then: Evaluation, on_training: Evaluation) -> bool:
    """Whether a trained network may stand in for the factory model. now, then: what they answer on the same validation
    samples; on_training: what the factory model does on the training samples."""
    return figure(now) >= figure(then) and figure(now) > figure(then, on_training)


def figure(*answers: Evaluation) -> float:
    """How good answers are, the higher the better: the share that is right, or less the mean absolute error; nan
    without any, which is no better than anything."""
    count = sum(part.count for part in answers)
    if not count:
        return math.nan
    if answers[0].error_N is not None:
        return -math.fsum(part.error_sum for part in answers) / count
    return sum(part.correct for part in answers) / (count * answers[0].decisions)


def served_network(run: str | Path, client: int) -> nn.Module:
    """The network that answers on a client's device at the end of the run in folder `run`, on the CPU, in eval mode.

    The factory model where that serves, and where the device never finished a round; with `training.prior` a network
    whose logits are corrected. Data and factory model are taken from the cache, or prepared again. UserError where
    there is no such run or client, or the device's file is damaged.
    """
    scenario = read_scenario(Path(run) / SCENARIO)
    if not 0 <= client < scenario.clients:
        raise UserError(f"client is {client}; the run in {run} has clients 0 to {scenario.clients - 1}")
    try:
        state = StateFolder(Path(run) / "devices" / str(client)).before(scenario.all_rounds + 1)
    except DeviceFailure as failure:
        raise UserError(f"client {client} of the run in {run}: {failure}") from None
    prepared = prepare(scenario)
    network = rebuilt(prepared, _kept(state, state.served))
    prior = LabelPrior.held(state.prior, Path(prepared.folder))
    if prior is not None:
        network = CorrectedNetwork(network, prior.corrected(prepared.asked).shift)
    return network.eval()


def _kept(state: DeviceState, served: Served | None) -> KeptNetwork:
    """What a state holds of the network that serves."""
    if served is None:
        return KeptNetwork(state.topology, state.model)
    return _best_of(state, served) if served.of else _FACTORYS


def _best_of(state: DeviceState, served: Served) -> KeptNetwork:
    return served.network or KeptNetwork(state.topology, state.model)


def _built(round: Round, kept: KeptNetwork) -> nn.Module:
    """On the device's processor; what building it draws is nobody's."""
    with generators_kept(round.torch_device):
        return rebuilt(round.prepared, kept).to(round.torch_device)
