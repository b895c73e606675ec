"""A yardstick over a scenario's shards, splits and factory model.

    for each round:  every client k trains what it is sent, w^k
                     w = sum_k n_k w^k / sum_k n_k            over the tensors that are shared, n_k its training samples

It writes reports.jsonl as a run does, and a summary with `weights_bytes`: what its weights would have moved, down and
up. Methods, faults and limits of the scenario play no part; virtual time and energy are of dense training and of links
that carry the weights.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedge.cache import hold, let_go
from fedge.console.observer import Observer
from fedge.coordinator.metrics import accuracy, saved
from fedge.coordinator.paired import gain, hurt
from fedge.data.shard import Shard
from fedge.device.budget.clock import Work, round_cost, spread
from fedge.device.memory.demand import peak_bytes
from fedge.device.reporting import figures_of_task
from fedge.errors import RunError
from fedge.prepare import Prepared, prepare
from fedge.protocol import RoundReport, finite
from fedge.results.run_folder import SCENARIO, SUMMARY
from fedge.results.write import replace_text
from fedge.scenario.file import scenario_toml
from fedge.scenario.schema import Scenario
from fedge.seeding import derive_seed
from fedge.training.stats import TrainStats
from fedge.training.torch_device import opened
from fedge.training.update.what import freeze
from fedge.yardsticks.client import Client, State
from fedge.yardsticks.methods import YARDSTICKS, Yardstick

Row = dict[str, Any]


def run_yardstick(name: str, scenario: Scenario, out: Path, observer: Observer) -> None:
    """Run it to its end and write its results into `out`; begun again from the start where it was killed."""
    prepared = prepare(scenario)
    hold(Path(prepared.folder))
    try:
        _run(name, scenario, prepared, out, observer)
    finally:
        let_go()


def _run(name: str, scenario: Scenario, prepared: Prepared, out: Path, observer: Observer) -> None:
    fleet = _Fleet(YARDSTICKS[name], scenario, prepared)
    rows: list[Row] = []
    times_s = []
    for round in range(1, scenario.rounds + 1):
        reports = fleet.round(round)
        rows += reports
        times_s.append(max(row["time_s"] for row in reports))
        observer.round_finished({"round": round, "accuracy": accuracy(reports)})
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / SCENARIO, scenario_toml(scenario))
    replace_text(out / "reports.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    summary = _summary(name, scenario, rows, times_s) | {"weights_bytes": fleet.moved_bytes}
    replace_text(out / SUMMARY, json.dumps(summary, indent=2) + "\n")


class _Fleet:
    """The clients and what they share: `average`, which begins as the factory model."""

    def __init__(self, yardstick: Yardstick, scenario: Scenario, prepared: Prepared) -> None:
        self._yardstick, self._scenario, self._prepared = yardstick, scenario, prepared
        self._model = prepared.factory_model().to(opened(scenario.engine.device))
        self._owned = yardstick.owned(self._model, prepared.input_shape)
        self.average = _copy(self._model.state_dict())
        shards = Path(prepared.folder) / "shards"
        everybody = [
            Client(
                number, scenario.device_class_of(number), Shard.open(shards, number), scenario, prepared.asked
            )
            for number in range(scenario.clients)
        ]
        self.clients = [client for client in everybody if client.samples]
        if not self.clients:
            raise RunError("no client has training samples")
        self.moved_bytes = 0

    @property
    def shared_bytes(self) -> int:
        """Of one client's weights on one way."""
        return sum(tensor.nbytes for name, tensor in self.average.items() if name not in self._owned)

    def round(self, round: int) -> list[Row]:
        """One round of all clients, in their order."""
        sums: State = {}
        reports, done = [], []
        for client in self.clients:
            self._load(client)
            stats = self._train(client, round)
            state = self._model.state_dict()
            client.own = _copy({name: state[name] for name in self._owned})
            for name, tensor in state.items():
                if name not in self._owned and tensor.is_floating_point():
                    sums[name] = sums.get(name, torch.zeros_like(tensor, dtype=torch.float64))
                    sums[name] += client.samples * tensor.double()
            done.append(stats)
            if self._yardstick.serves != "average":
                reports.append(self._report(client, round, stats))
        total = sum(client.samples for client in self.clients)
        self.average |= {name: (tensor / total).float() for name, tensor in sums.items()}
        self.moved_bytes += 2 * self.shared_bytes * len(self.clients)
        if self._yardstick.serves == "average":
            for client, stats in zip(self.clients, done, strict=True):
                self._load(client)
                reports.append(self._report(client, round, stats))
        return reports

    def _load(self, client: Client) -> None:
        """The average, and over it what is the client's own."""
        self._model.load_state_dict(self.average | client.own)

    def _train(self, client: Client, round: int) -> TrainStats:
        """Leaves the network that is averaged in the model, and Ditto's personal one in the client."""
        epochs, shape = self._scenario.training_of(client.device_class).epochs, self._prepared.input_shape
        if self._yardstick.alternates:
            freeze(self._model, "head", shape)
            stats = client.train(self._model, round, epochs=epochs)
            for name, parameter in self._model.named_parameters():
                parameter.requires_grad_(name not in self._owned)
            stats += client.train(self._model, round, epochs=1, purpose="body")
            self._model.requires_grad_(True)
            return stats
        stats = client.train(self._model, round, epochs=epochs)
        if self._yardstick.serves == "personal":
            shared, own = _copy(self._model.state_dict()), client.personal or self.average
            self._model.load_state_dict(own)
            stats += client.train_near(self._model, self.average, round)
            client.personal = _copy(self._model.state_dict())
            self._model.load_state_dict(shared)
        return stats

    def _report(self, client: Client, round: int, stats: TrainStats) -> Row:
        """What the client's network answers: the one that is loaded, or its personal one."""
        if client.personal is not None:
            shared = _copy(self._model.state_dict())
            self._model.load_state_dict(client.personal)
        validation, test = (
            client.evaluate(self._model, split, client.answers) for split in ("validation", "test")
        )
        if client.personal is not None:
            self._model.load_state_dict(shared)
        report = RoundReport(
            round=round,
            client=client.number,
            samples_seen=stats.samples_seen,
            samples_kept=stats.samples_kept,
            macs_done=stats.macs_done,
            macs_dense=stats.samples_seen * self._prepared.macs_training,
            bit_operations=stats.bit_operations,
            train_loss=finite(stats.loss),
            validation_correct=validation.correct,
            validation_count=validation.count,
            test_correct=test.correct,
            test_count=test.count,
            **client.factory_answers(self._prepared).tallies(test.right_N, test.error_N),
            **figures_of_task(self._prepared, validation, test),
            parameters=self._prepared.parameters,
            parameters_dense=self._prepared.parameters,
            batch_size=min(self._scenario.training.batch_size, client.samples),
        )
        priced = report.model_copy(update=self._price(client, round, stats, self._model))
        about = {"round": round, "client": client.number, "device": client.device_class.label, "status": "ok"}
        return about | priced.row()

    def _price(self, client: Client, round: int, stats: TrainStats, model: nn.Module) -> Mapping[str, float]:
        scenario = self._scenario
        training = scenario.training_of(client.device_class)
        size = min(training.batch_size, client.samples)
        work = Work(
            macs=stats.macs_done,
            steps=stats.steps,
            memory_bytes=peak_bytes(
                model, training, size, self._prepared.input_shape, task=self._prepared.asked
            ),
            received_bytes=self.shared_bytes,
            sent_bytes=self.shared_bytes,
        )
        slowness = spread(scenario.clock, seed=scenario.seed, client=client.number, round=round)
        profile = scenario.profile_of(client.device_class)
        cost = round_cost(profile, work, scenario.clock, spread=slowness)
        return {"time_s": cost.time_s, "energy_j": cost.energy_j, "memory_bytes": work.memory_bytes}


def _copy(state: Mapping[str, Tensor]) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _summary(name: str, scenario: Scenario, rows: list[Row], times_s: list[float]) -> dict[str, Any]:
    last = [row for row in rows if row["round"] == scenario.rounds]
    done, dense = (sum(row[key] for row in rows) for key in ("macs_done", "macs_dense"))
    return {
        "scenario": scenario.name,
        "yardstick": name,
        "seed": scenario.seed,
        "rounds": scenario.rounds,
        "clients": scenario.clients,
        "accuracy": accuracy(last),
        "gain": gain(last, seed=derive_seed(scenario.seed, "interval")),
        "hurt": hurt(last),
        "macs": {"done": done, "dense": dense, "saved": saved(done, dense)},
        "time_s": sum(times_s),
        "energy_j": sum(row["energy_j"] for row in rows),
        "egress": {"messages": 0, "bytes": 0, "fields": []},
        "failures": 0,
        "never_reported": scenario.clients - len(last),
    }
