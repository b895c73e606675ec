"""Yardsticks against plain loops, and in their limiting cases."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

import fedge
from fedge.console.observer import Observer
from fedge.data.shard import Shard
from fedge.prepare import prepare
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario
from fedge.seeding import derive_seed
from fedge.study.study import YARDSTICKS as NAMES
from fedge.yardsticks.methods import YARDSTICKS, head, norms
from fedge.yardsticks.run import run_yardstick

DENSE = ["training.pruning.level=0", "training.error_maps.keep=1", 'training.instance_filter={kind="none"}']


def small(*settings: str, clients: int = 1) -> Scenario:
    counts = [f"fleet.{index}.count={clients}" for index in range(3)]
    base = ["engine.kind=inline", "rounds=2", "training.epochs=1", "model.factory.epochs=1", *counts]
    return load_scenario("quickstart", [*base, *DENSE, *settings])


def reports(name: str, scenario: Scenario, out: Path) -> list[dict[str, Any]]:
    run_yardstick(name, scenario, out, Observer())
    return [json.loads(line) for line in (out / "reports.jsonl").read_text().splitlines()]


def test_studies_know_every_yardstick() -> None:
    """Breaks if a study can name a yardstick that is none, or one cannot be named."""
    assert set(NAMES) == set(YARDSTICKS)


def test_fedavg_is_the_plain_loop(tmp_path: Path) -> None:
    """Breaks if the average is weighted wrongly, or a client trains from another network than the average."""
    scenario = small()
    rows = reports("fedavg", scenario, tmp_path / "y")
    prepared = prepare(scenario)
    shards = [Shard.open(Path(prepared.folder) / "shards", client) for client in range(3)]
    average, model = prepared.factory_model().state_dict(), prepared.factory_model()
    for round in (1, 2):
        trained = []
        for client, shard in enumerate(shards):
            model.load_state_dict(average)
            sgd = torch.optim.SGD(model.parameters(), lr=0.003, momentum=0.9)
            seed = derive_seed(scenario.seed, client, round, "shuffle", 0)
            for x_BCHW, y_B in shard.batches("train", 16, seed=seed):
                sgd.zero_grad()
                cross_entropy(model(x_BCHW), y_B).backward()
                sgd.step()
            trained.append({name: tensor.double().clone() for name, tensor in model.state_dict().items()})
        counts = [len(shard) for shard in shards]
        average = {
            name: sum(n * state[name] for n, state in zip(counts, trained, strict=True)) / sum(counts)
            for name in average
        }
    model.load_state_dict(average)
    model.eval()
    for client, shard in enumerate(shards):
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in shard.batches("test", 64))
        (row,) = (row for row in rows if (row["client"], row["round"]) == (client, 2))
        assert row["test_correct"] == right


@pytest.mark.parametrize("name", ["fedavg", "fedavg_finetune", "fedbn"])
def test_alone_every_average_is_local_training(name: str, tmp_path: Path) -> None:
    """Breaks if a yardstick of one client does anything but what that device does by itself."""
    scenario = small("model.name=resnet8", 'fleet=[{device="jetson-nano", count=1}]')
    alone = fedge.run(scenario, tmp_path / "run").reports()
    same = (
        "test_correct",
        "validation_correct",
        "factory_correct",
        "told_correct",
        "macs_done",
        "train_loss",
    )
    for row, own in zip(reports(name, scenario, tmp_path / "y"), alone, strict=True):
        assert {key: row[key] for key in same} == {key: own[key] for key in same}


def test_what_stays_on_a_client(tmp_path: Path) -> None:
    """Breaks if FedBN shares a norm's statistics, or FedRep anything but the head's layer stays."""
    model = fedge.models.build("resnet8", num_classes=10, in_channels=1, image_size=16)
    kept = norms(model, (1, 16, 16))
    assert all(("running" in name or "num_batches" in name) <= (name in kept) for name in model.state_dict())
    assert not any(tensor.dim() > 1 for name, tensor in model.state_dict().items() if name in kept)
    assert {
        tensor.shape[0] for name, tensor in model.state_dict().items() if name in head(model, (1, 16, 16))
    } == {10}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_bytes_are_those_of_the_weights_that_move(tmp_path: Path) -> None:
    """Breaks if a table shows a yardstick's accuracy beside too few bytes."""
    scenario = small()
    moved = {}
    for name in ("fedavg", "fedrep"):
        reports(name, scenario, tmp_path / name)
        moved[name] = json.loads((tmp_path / name / "summary.json").read_text())["weights_bytes"]
    parameters = 56_080  # of LeNet on 16 x 16 pictures: README
    assert moved["fedavg"] == 2 * 2 * 3 * 4 * parameters
    assert moved["fedrep"] < moved["fedavg"]


@pytest.mark.parametrize("name", ["fedrep", "ditto"])
def test_a_second_run_gives_the_same_reports(name: str, tmp_path: Path) -> None:
    """Breaks if a yardstick draws from a generator that nobody seeded."""
    scenario = small()
    assert reports(name, scenario, tmp_path / "a") == reports(name, scenario, tmp_path / "b")


def test_answers_among_own_classes_are_a_yardsticks_too(tmp_path: Path) -> None:
    """Breaks if a study gives fedge's methods the free lunch and the yardsticks beside them none."""
    two = "data.partition={kind='pathological', classes=2}"
    rows = {
        answers: reports(
            "fedavg",
            small(two, "training.learning_rate=1e-12", f"training.answers={answers}"),
            tmp_path / answers,
        )
        for answers in ("own", "all")
    }
    for own, every in zip(rows["own"], rows["all"], strict=True):
        assert own["test_correct"] == own["told_correct"] == every["told_correct"]
        assert own["train_loss"] < every["train_loss"]
