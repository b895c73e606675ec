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
from fedge.errors import UserError
from fedge.prepare import prepare
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario
from fedge.seeding import derive_seed
from fedge.yardsticks.methods import YARDSTICKS, head, norms
from fedge.yardsticks.run import run_yardstick
from fedge.yardsticks.settings import NAMES, left_out, plays_no_part

pytestmark = pytest.mark.long

DENSE = ["training.pruning.level=0", "training.error_maps.keep=1", 'training.instance_filter={kind="none"}']
SHORT = ["engine.kind=inline", "rounds=2", "training.epochs=1", "model.factory.epochs=1"]


def small(*settings: str, clients: int = 1) -> Scenario:
    counts = [f"fleet.{index}.count={clients}" for index in range(3)]
    return load_scenario("quickstart", [*SHORT, *counts, *DENSE, *settings])


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


SAME = (
    "test_correct", "validation_correct", "factory_correct", "told_correct", "macs_done", "macs_dense", "train_loss",
    "optimizer", "what", "memory_bytes", "memory_limit_bytes", "batch_size", "samples_kept", "parameters",
)  # fmt: skip
ONE = ("data.factory_fraction=0.8", 'fleet=[{device="jetson-nano", count=1}]')
THIN = ("model.name=resnet8", "model.args.width=0.25", *ONE)
SETTINGS = {
    "plain": (),
    "rate": ("training.decay={kind='cosine'}", "training.optimizer={kind='adamw',weight_decay=0.1}"),
    "part": ("training.what=last", "training.decay={kind='step',at=[0.4],per='round'}", "training.epochs=2"),
    "layers": ("training.what=['stage3','head']", "training.optimizer.momentum=0.0"),
    "loss": ("training.loss={kind='cross_entropy',label_smoothing=0.2}", "training.transform=crop_flip"),
    "class": ("fleet.0.training={batch_size=8, learning_rate=0.02}",),
}
DROPS = """
from torch import nn

def build(num_classes, in_channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.BatchNorm1d(32), nn.Dropout(), nn.Linear(32, num_classes))
"""


def require_local_training(name: str, scenario: Scenario, folder: Path) -> None:
    """A yardstick of one client and a device without methods say the same."""
    alone = fedge.run(scenario, folder / "run").reports()
    for row, own in zip(reports(name, scenario, folder / "y"), alone, strict=True):
        assert {key: row[key] for key in SAME} == {key: own[key] for key in SAME}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_alone_an_average_is_local_training(settings: tuple[str, ...], tmp_path: Path) -> None:
    """Breaks if a yardstick trains by other settings than the devices that it is compared with."""
    require_local_training("fedavg", small(*THIN, *settings), tmp_path)


@pytest.mark.parametrize("name", ["fedavg_finetune", "fedbn"])
def test_alone_the_others_are_local_training_too(name: str, tmp_path: Path) -> None:
    """Breaks if what one of them serves or keeps changes what its client trains."""
    require_local_training(name, small(*THIN), tmp_path)


def test_dropout_draws_as_on_a_device(tmp_path: Path) -> None:
    """Breaks if a yardstick's dropout goes on from wherever the process's generator is."""
    (tmp_path / "net.py").write_text(DROPS)
    network = f"model={{program='{tmp_path / 'net.py'}',factory={{epochs=1}}}}"
    torch.manual_seed(int(torch.initial_seed()) + 1)
    require_local_training("fedavg", small(network, *ONE), tmp_path)


def test_methods_of_fedge_play_no_part(tmp_path: Path) -> None:
    """Breaks if pruning, filter or error maps of the scenario change a yardstick's numbers, or it does not say so."""
    methods = (
        "training.pruning.level=0.5",
        "training.error_maps.keep=0.3",
        "training.instance_filter.kind=random",
    )
    found = {
        name: reports("fedavg", load_scenario("quickstart", [*SHORT, *settings]), tmp_path / name)
        for name, settings in (("methods", methods), ("dense", DENSE))
    }
    assert found["methods"] == found["dense"]
    summary = json.loads((tmp_path / "methods" / "summary.json").read_text())
    assert summary["no_part"] == ["training.pruning", "training.instance_filter", "training.error_maps"]


def test_a_class_that_prunes_is_named_too() -> None:
    """Breaks if a method that one device class alone uses, or a client program, is left out in silence."""
    scenario = small("fleet.1.training={pruning={level=0.5}}", "faults.crash.at=[[1, 1]]", "client=dense")
    assert left_out(scenario) == ["training.pruning", "client", "faults"]
    assert plays_no_part("fleet.0.training.pruning.level") and plays_no_part("client.args.a")
    assert not plays_no_part("fleet.0.training.epochs") and not plays_no_part("training.learning_rate")


def test_what_is_frozen_does_not_move(tmp_path: Path) -> None:
    """Breaks if the bytes of a head that alone is trained are those of the whole network."""
    scenario = small("training.what=head")
    rows = reports("fedavg", scenario, tmp_path)
    head_bytes = 4 * (500 * 10 + 10)  # LeNet's
    assert json.loads((tmp_path / "summary.json").read_text())["weights_bytes"] == 2 * 2 * 3 * head_bytes
    assert {row["what"] for row in rows} == {"head"}
    with pytest.raises(UserError, match="which stays on the client here"):
        reports("fedrep", scenario, tmp_path)


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
