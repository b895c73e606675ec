"""Seconds per round of real training: fedge on Ray with one host, beside a bare PyTorch loop on the same
batches.

The bare loop is what one would write with PyTorch alone: for each client in turn, load its weights from
memory, train its batches with SGD, count right answers on its validation and test data. It reads the same
prepared shards with the same seeds on one thread, so both must find the same accuracies; that is checked.

The two take turns round by round, and at the same niceness, so that whatever else the machine does meets both
alike.
"""

import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CHANGES = (
    'name="overhead"',
    'client="dense"',
    "data.factory_fraction=0.9",  # 7,000 of MNIST's pictures for the clients
    "model.factory.epochs=0",
    'fleet=[{device="jetson-nano", count=6}]',  # about 700 pictures to train on each
    "training.epochs=3",
    "engine.hosts=1",
)


def paired_rounds(rounds: int, out: str) -> dict[str, Any]:
    """Seconds of each round, by the clock and of the processors: fedge's (all its processes), the bare loop's.

    fedge's first round holds the start of its host.
    """
    from benchmarks.process import tree_cpu_s
    from fedge.console.observer import Observer
    from fedge.launch import run
    from fedge.scenario.load import load_scenario

    changes = [*CHANGES, f"rounds={rounds}"]
    ours, theirs = get_context("spawn").Pipe()
    bare = get_context("spawn").Process(target=bare_rounds, args=(theirs, changes), daemon=True)
    bare.start()
    fedge_s: list[float] = []
    fedge_cpu_s: list[float] = []
    bare_s: list[float] = []
    bare_cpu_s: list[float] = []
    bare_correct: list[list[int]] = []

    class Pairs(Observer):
        def round_started(self, round: int, clients: int) -> None:
            ours.send(round)
            for figures, figure in zip((bare_s, bare_cpu_s, bare_correct), ours.recv(), strict=True):
                figures.append(figure)
            self.began_s, self.began_cpu_s = time.perf_counter(), tree_cpu_s(without=bare.pid)

        def round_finished(self, figures: Any) -> None:
            fedge_s.append(time.perf_counter() - self.began_s)
            fedge_cpu_s.append(tree_cpu_s(without=bare.pid) - self.began_cpu_s)

    result = run(load_scenario("mnist-dirichlet", changes), out, observer=Pairs())
    ours.send(0)
    bare.join()
    reports = result.reports()
    correct = [[row["test_correct"] for row in reports if row["round"] == r] for r in range(1, rounds + 1)]
    if correct != bare_correct:
        raise RuntimeError("fedge and the bare loop did not do the same work")
    return {"fedge_s": fedge_s, "bare_s": bare_s, "fedge_cpu_s": fedge_cpu_s, "bare_cpu_s": bare_cpu_s}


def bare_rounds(pipe: Connection, changes: list[str]) -> None:
    """Run the round that comes through the pipe; send back seconds, processor seconds, right answers. 0 ends."""
    import torch

    from fedge.data.shard import Shard
    from fedge.prepare import prepare
    from fedge.scenario.load import load_scenario

    torch.set_num_threads(1)
    scenario = load_scenario("mnist-dirichlet", changes)
    prepared = prepare(scenario)
    shards = [Shard.open(Path(prepared.folder) / "shards", client) for client in range(scenario.clients)]
    model, factory = prepared.build_model(), prepared.factory_model().state_dict()
    weights = [factory for _ in shards]
    while round := pipe.recv():
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        correct = []
        for client, shard in enumerate(shards):
            model.load_state_dict(weights[client])
            _train(model, shard, scenario, round)
            _count_correct(model, shard, "validation")
            correct.append(_count_correct(model, shard, "test"))
            weights[client] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        pipe.send((time.perf_counter() - began_s, time.process_time() - began_cpu_s, correct))


def _train(model: Any, shard: Any, scenario: Any, round: int) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    from fedge.seeding import derive_seed

    choice = scenario.training
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=choice.learning_rate,
        momentum=choice.momentum,
        weight_decay=choice.weight_decay,
    )
    model.train()
    for epoch in range(choice.epochs):
        seed = derive_seed(scenario.seed, shard.client, round, "shuffle", epoch)
        for x_BCHW, y_B in shard.batches("train", choice.batch_size, seed=seed, order=torch.channels_last):
            optimizer.zero_grad()
            cross_entropy(model(x_BCHW), y_B).backward()
            optimizer.step()


def _count_correct(model: Any, shard: Any, split: str) -> int:
    import torch

    model.eval()
    batches = shard.batches(split, 256, order=torch.channels_last)
    with torch.no_grad():
        return sum(int((model(x_BCHW).argmax(1) == y_B).sum()) for x_BCHW, y_B in batches)
