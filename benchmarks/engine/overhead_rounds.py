"""Seconds per round of real training: fedge with one host, beside a bare PyTorch loop on the same batches.

The bare loop is what one would write with PyTorch alone: for each client in turn, load its weights from
memory, train its batches with SGD, count right answers on its validation and test data. It reads the same
prepared shards with the same seeds on one thread, so both must find the same accuracies; that is checked.

The two take turns round by round, and at the same niceness, so that whatever else the machine does meets both
alike.
"""

import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CHANGES = (
    'name="overhead"',
    'client="dense"',
    "data.factory_fraction=0.9",  # of MNIST, 7,000 samples for the clients
    "model.factory.epochs=0",
    'fleet=[{device="jetson-nano", count=6}]',  # of MNIST, about 700 samples to train on each
    "training.epochs=3",
    "engine.hosts=1",
)


def paired_rounds(rounds: int, out: str, scenario: str, changes: list[str]) -> dict[str, list[float]]:
    """Seconds of each round, by the clock and of the processors: fedge's (all its processes), the bare loop's.

    fedge's first round holds the start of its host.
    """
    from benchmarks.measure.process import beside, tree_cpu_s
    from fedge.console.observer import Observer
    from fedge.launch import run
    from fedge.scenario.load import load_scenario

    changes = [*CHANGES, f"rounds={rounds}", *changes]
    figures: dict[str, list[float]] = {
        name: [] for name in ("fedge_s", "bare_s", "fedge_cpu_s", "bare_cpu_s")
    }
    bare_correct: list[list[int]] = []
    with beside(bare_rounds, scenario, changes) as (bare, bare_process):

        class Pairs(Observer):
            def round_started(self, round: int, clients: int) -> None:
                bare.send(round)
                wall_s, cpu_s, correct = bare.recv()
                figures["bare_s"].append(wall_s)
                figures["bare_cpu_s"].append(cpu_s)
                bare_correct.append(correct)
                self.began_s, self.began_cpu_s = time.perf_counter(), tree_cpu_s(without=bare_process)

            def round_finished(self, metrics: Any) -> None:
                figures["fedge_s"].append(time.perf_counter() - self.began_s)
                figures["fedge_cpu_s"].append(tree_cpu_s(without=bare_process) - self.began_cpu_s)

        result = run(load_scenario(scenario, changes), out, observer=Pairs())
    reports = result.reports()
    correct = [[row["test_correct"] for row in reports if row["round"] == r] for r in range(1, rounds + 1)]
    if correct != bare_correct:
        raise RuntimeError("fedge and the bare loop did not do the same work")
    return figures


def bare_rounds(pipe: Connection, name: str, changes: list[str]) -> None:
    """Run the round that comes through the pipe; send back seconds, processor seconds, right answers. None ends."""
    import torch

    from benchmarks.measure.steps import timed
    from fedge.data.shard import Shard
    from fedge.prepare import prepare
    from fedge.scenario.load import load_scenario

    torch.set_num_threads(1)
    scenario = load_scenario(name, changes)
    prepared = prepare(scenario)
    shards = [Shard.open(Path(prepared.folder) / "shards", client) for client in range(scenario.clients)]
    model, factory = prepared.build_model(), prepared.factory_model().state_dict()
    weights = [factory for _ in shards]

    def one_round(round: int, correct: list[int]) -> None:
        for client, shard in enumerate(shards):
            model.load_state_dict(weights[client])
            _train(model, shard, scenario, round)
            _count_correct(model, shard, "validation")
            correct.append(_count_correct(model, shard, "test"))
            weights[client] = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    while (round := pipe.recv()) is not None:
        correct: list[int] = []
        times = timed(lambda round=round, correct=correct: one_round(round, correct))
        pipe.send((*times, correct))


def _train(model: Any, shard: Any, scenario: Any, round: int) -> None:
    import torch

    from benchmarks.measure.steps import train_step
    from fedge.seeding import derive_seed

    choice = scenario.training
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=choice.learning_rate,
        **choice.optimizer.model_dump(exclude={"kind"}),
    )
    model.train()
    for epoch in range(choice.epochs):
        seed = derive_seed(scenario.seed, shard.client, round, "shuffle", epoch)
        for x_BCHW, y_B in shard.batches("train", choice.batch_size, seed=seed, order=torch.channels_last):
            train_step(model, x_BCHW, y_B, optimizer)


def _count_correct(model: Any, shard: Any, split: str) -> int:
    import torch

    model.eval()
    batches = shard.batches(split, 256, order=torch.channels_last)
    with torch.no_grad():
        return sum(int((model(x_BCHW).argmax(1) == y_B).sum()) for x_BCHW, y_B in batches)
