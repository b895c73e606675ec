"""Which of its networks a device answers with: `training.serve`, decided by its own validation samples.

    last          what the round has trained
    best          of the rounds' networks the one with the best validation figure so far, the later of equals
    never_worse   the same, with the factory model among them

The figure is the number of right answers, of labels all of them, of numbers the smaller mean absolute error. Test
samples are asked of the network that was chosen, and choose nothing. Training goes on from what the round has trained,
whatever serves.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fedge.device.network import rebuilt
from fedge.device.round import Round
from fedge.device.state import DeviceState, KeptNetwork, Served, StateFolder
from fedge.errors import UserError
from fedge.prepare import prepare
from fedge.protocol import DeviceFailure
from fedge.results.run_folder import SCENARIO
from fedge.scenario.file import read_scenario
from fedge.training.stats import Evaluation
from fedge.training.torch_device import generators_kept

FACTORY = Served(0)
_FACTORYS = KeptNetwork(None, {})


@dataclass(frozen=True)
class Serving:
    """`model` answers `validation` on the validation samples. served: for the state; None: as every round leaves it."""

    model: nn.Module
    validation: Evaluation
    served: Served | None = None

    @classmethod
    def after(cls, round: Round) -> "Serving":
        """Choose between what the round has trained and what served before it."""
        trained = round.network.model
        now = round.evaluate("validation", trained)
        serve = round.training.serve
        if serve == "last":
            return cls(trained, now)
        held = round.before.served or (FACTORY if serve == "never_worse" else None)
        if held is None or (serve == "best" and not held.of):
            return cls(trained, now, Served(round.plan.round))
        model = _held_network(round, held)
        then = round.evaluate("validation", model)
        if prefers(now, then, over=held.of):
            return cls(trained, now, Served(round.plan.round))
        return cls(model, then, _to_keep(round, held))


def prefers(now: Evaluation, then: Evaluation, *, over: int) -> bool:
    """Whether what was trained now is to serve in place of the network of round `over`, by the same validation samples:
    where it is no worse than a trained one, or better than the factory model (0). An error that is no number is worse.
    """
    if now.error_N is not None:
        return now.error_sum < then.error_sum or (over > 0 and now.error_sum == then.error_sum)
    return now.correct > then.correct or (over > 0 and now.correct == then.correct)


def served_network(run: str | Path, client: int) -> nn.Module:
    """The network that answers on a client's device at the end of the run in folder `run`, on the CPU, in eval mode.

    The factory model where that serves, and where the device never finished a round. Data and factory model are taken
    from the cache, or prepared again. UserError where there is no such run or client, or the device's file is damaged.
    """
    scenario = read_scenario(Path(run) / SCENARIO)
    if not 0 <= client < scenario.clients:
        raise UserError(f"client is {client}; the run in {run} has clients 0 to {scenario.clients - 1}")
    try:
        state = StateFolder(Path(run) / "devices" / str(client)).before(scenario.rounds + 1)
    except DeviceFailure as failure:
        raise UserError(f"client {client} of the run in {run}: {failure}") from None
    return rebuilt(prepare(scenario), _kept(state, state.served)).eval()


def _kept(state: DeviceState, served: Served | None) -> KeptNetwork:
    """What a state holds of the network that serves."""
    if served is None:
        return KeptNetwork(state.topology, state.model)
    return _FACTORYS if not served.of else served.network or KeptNetwork(state.topology, state.model)


def _held_network(round: Round, held: Served) -> nn.Module:
    """On the device's processor; what building it draws is nobody's."""
    with generators_kept(round.torch_device):
        return rebuilt(round.prepared, _kept(round.before, held)).to(round.torch_device)


def _to_keep(round: Round, held: Served) -> Served:
    """With its weights, as those of the state are to be others now."""
    if not held.of or held.network is not None:
        return held
    return Served(held.of, KeptNetwork(round.before.topology, round.before.model))
