"""The clients of a yardstick and the network that they share, round by round."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from fedge.device.answers.reporting import figures_of
from fedge.device.budget.clock import Work, round_cost, spread
from fedge.device.memory.demand import peak_bytes
from fedge.device.time.pricing import learnt_s
from fedge.errors import RunError, UserError
from fedge.fleet.newcomers import unseen_clients
from fedge.prepare import Prepared
from fedge.protocol import RoundReport
from fedge.protocol.report import LAYERS, coded
from fedge.scenario.schema import Scenario
from fedge.training.stats import TrainStats
from fedge.training.torch_device import drawing_from, opened
from fedge.training.update.what import What, freeze, trained, training_mode
from fedge.yardsticks.client import Client, State
from fedge.yardsticks.methods import Yardstick, only

Row = dict[str, Any]


class Fleet:
    """`average` begins as the factory model. `moved_bytes`: of weights, down and up, until now. `newcomers`: clients
    that nobody learns from."""

    def __init__(self, yardstick: Yardstick, scenario: Scenario, prepared: Prepared) -> None:
        self._yardstick, self._scenario, self._prepared = yardstick, scenario, prepared
        self._model = prepared.factory_model().to(opened(scenario.engine.device))
        self._thawed = trained(self._model)  # what the network itself has not frozen
        self._owned = yardstick.owned(self._model, prepared.input_shape)
        self.average = _copy(self._model.state_dict())
        everybody = [Client.of(scenario, prepared, number) for number in range(scenario.clients)]
        there = [client for client in everybody if client.samples]
        unseen = unseen_clients(scenario)
        self.clients = [client for client in there if client.number not in unseen]
        self.newcomers = [client for client in there if client.number in unseen]
        if not self.clients:
            raise RunError("no client has training samples")
        self._trains = {what: self._trained_by(what) for what in {c.training.what for c in there}}
        self._changes = {what: self._changed_by(names) for what, names in self._trains.items()}
        shared = (self._changes[client.training.what] for client in self.clients)
        self._shared = frozenset().union(*shared) - self._owned
        if not self._shared:
            raise UserError(
                f"training.what is {self.clients[0].training.what!r}, which stays on the client here, and nothing is "
                "left to share: take 'all', or another yardstick"
            )
        self.moved_bytes = 0

    def _trained_by(self, what: What) -> frozenset[str]:
        """The names of the parameters."""
        only(self._model, self._thawed)
        freeze(self._model, what, self._prepared.input_shape)
        return trained(self._model)

    def _changed_by(self, names: frozenset[str]) -> frozenset[str]:
        """Them, and the statistics that layers take while these are trained."""
        only(self._model, names)
        training_mode(self._model)
        statistics = (
            f"{layer}.{name}" if layer else name
            for layer, module in self._model.named_modules()
            if module.training
            for name, tensor in module.named_buffers(recurse=False)
            if tensor.is_floating_point()
        )
        return names | (frozenset(statistics) & self.average.keys())

    def round(self, round: int) -> list[Row]:
        """One round of all clients, in their order."""
        sums: State = {}
        reports, done = [], []
        for client in self.clients:
            stats = self._trained(client, round)
            state = self._model.state_dict()
            client.own = _copy({name: state[name] for name in self._owned})
            for name in self._shared:
                weighted = client.samples * state[name].double()
                sums[name] = sums[name] + weighted if name in sums else weighted
            done.append(stats)
            if self._yardstick.serves != "average":
                reports.append(self._report(client, round, stats))
        total = sum(client.samples for client in self.clients)
        self.average |= {name: (sums[name] / total).to(self.average[name].dtype) for name in sums}
        self.moved_bytes += sum(self._down_bytes + self._up_bytes(client) for client in self.clients)
        if self._yardstick.serves == "average":
            for client, stats in zip(self.clients, done, strict=True):
                self._load(client)
                reports.append(self._report(client, round, stats))
        return reports

    def welcome(self, round: int) -> list[Row]:
        """The one round of the newcomers: each is served from the average, which learns nothing of it. It trains what
        the yardstick serves it with beside the average, if anything."""
        reports = []
        for client in self.newcomers:
            stats = TrainStats()
            if self._owned or self._yardstick.serves != "average":
                stats = self._trained(client, round)
                state = self._model.state_dict()
                client.own = _copy({name: state[name] for name in self._owned})
            if self._yardstick.serves == "average":
                self._load(client)
            reports.append(self._report(client, round, stats))
        return reports

    @property
    def welcome_bytes(self) -> int:
        """Of weights, that newcomers are sent."""
        return self._down_bytes * len(self.newcomers)

    @property
    def _down_bytes(self) -> int:
        """What a client is sent in a round: all that anybody changes and shares."""
        return sum(self.average[name].nbytes for name in self._shared)

    def _up_bytes(self, client: Client) -> int:
        """What it sends: of that, what it changes itself."""
        names = self._changes[client.training.what] & self._shared
        return sum(self.average[name].nbytes for name in names)

    def _load(self, client: Client) -> None:
        """The average, and over it what is the client's own; frozen as the client's settings say."""
        self._model.load_state_dict(self.average | client.own)
        only(self._model, self._trains[client.training.what])

    def _trained(self, client: Client, round: int) -> TrainStats:
        """Leaves the network that is averaged in the model, and Ditto's personal one in the client."""
        self._load(client)
        with drawing_from(client.local(round).seed("torch"), opened(self._scenario.engine.device)):
            if self._yardstick.alternates:
                return self._alternately(client, round)
            stats = client.train(self._model, round)
            if self._yardstick.serves == "personal":
                shared, own = _copy(self._model.state_dict()), client.personal or self.average
                self._model.load_state_dict(own)
                stats += client.train_near(self._model, self.average, round)
                client.personal = _copy(self._model.state_dict())
                self._model.load_state_dict(shared)
        return stats

    def _alternately(self, client: Client, round: int) -> TrainStats:
        """`training.epochs` of what the client owns, and one of the rest."""
        mine, epochs = self._trains[client.training.what], client.training.epochs
        phases = (
            (mine & self._owned, "shuffle", 0, epochs),
            (mine - self._owned, "body", epochs, epochs + 1),
        )
        total = TrainStats()
        for names, purpose, first, last in phases:
            if names:
                only(self._model, names)
                total += client.train(self._model, round, purpose, first=first, last=last, of=epochs + 1)
        only(self._model, mine)
        return total

    def _report(self, client: Client, round: int, stats: TrainStats) -> Row:
        """What the client's network answers: the one that is loaded, or its personal one."""
        with self._serving(client):
            answers = client.local(round).answers
            validation, test = (
                client.evaluate(self._model, split, answers, round) for split in ("validation", "test")
            )
        training, parameters = client.training, self._prepared.parameters
        report = RoundReport(
            round=round,
            client=client.number,
            macs_done=stats.macs_done,
            **figures_of(self._prepared, stats, client.factory_answers(), validation, test),
            **self._priced(client, round, stats),
            parameters=parameters,
            parameters_dense=parameters,
            batch_size=client.batch_size,
            **coded(
                optimizer=training.optimizer.kind,
                what=training.what if isinstance(training.what, str) else LAYERS,
            ),
        )
        about = {"round": round, "client": client.number, "device": client.device_class.label, "status": "ok"}
        about |= {"unseen": True} if self._scenario.is_for_unseen(round) else {}
        return about | report.row()

    @contextmanager
    def _serving(self, client: Client) -> Iterator[None]:
        """The personal network in place of the one that is loaded, where the client has one."""
        if client.personal is None:
            yield
            return
        loaded = _copy(self._model.state_dict())
        self._model.load_state_dict(client.personal)
        yield
        self._model.load_state_dict(loaded)

    def _priced(self, client: Client, round: int, stats: TrainStats) -> Mapping[str, Any]:
        """Virtual time, energy and memory of the client's round."""
        scenario, prepared = self._scenario, self._prepared
        profile = scenario.profile_of(client.device_class)
        peak = peak_bytes(
            self._model, client.training, client.batch_size, prepared.input_shape, task=prepared.asked
        )
        work = Work(
            macs=stats.macs_done,
            steps=stats.steps,
            memory_bytes=int(scenario.limits.overhead * peak),
            received_bytes=self._down_bytes,
            sent_bytes=0 if scenario.is_for_unseen(round) else self._up_bytes(client),
            learnt_s=learnt_s(
                profile,
                self._model,
                prepared.input_shape,
                macs=stats.macs_done,
                stats=stats,
                batch_size=client.batch_size,
            ),
        )
        slowness = spread(scenario.clock, seed=scenario.seed, client=client.number, round=round)
        cost = round_cost(profile, work, scenario.clock, spread=slowness)
        return {
            "time_s": cost.time_s,
            "down_s": cost.down_s,
            "up_s": cost.up_s,
            "energy_j": cost.energy_j,
            "memory_bytes": work.memory_bytes,
            "memory_asked_bytes": work.memory_bytes,
            "memory_limit_bytes": profile.memory_bytes,
        }


def _copy(state: Mapping[str, Tensor]) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}
