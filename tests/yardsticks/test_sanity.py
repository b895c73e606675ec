"""fedge's averaging and its plain local training are what thirty lines of PyTorch make of the same rows."""

import os
import statistics
from pathlib import Path

import pytest

import fedge
from fedge.console.observer import Observer
from fedge.results.run_folder import read_reports
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario
from fedge.yardsticks.run import run_yardstick
from tests.yardsticks.plain import Plain

pytestmark = pytest.mark.long

PICTURES = Path(os.environ.get("FEDGE_DATA", "data")) / "cifar-10-batches-py"
DENSE = ("training.pruning.level=0", "training.error_maps.keep=1", 'training.instance_filter={kind="none"}')


def last_accuracies(rows: list[dict], rounds: int) -> list[float]:
    return [row["test_correct"] / row["test_count"] for row in rows if row["round"] == rounds]


def by_yardstick(scenario: Scenario, out: Path) -> list[float]:
    run_yardstick("fedavg", scenario, out, Observer())
    return last_accuracies(list(read_reports(out)), scenario.rounds)


def by_devices(scenario: Scenario, out: Path) -> list[float]:
    return last_accuracies(fedge.run(scenario, out).reports(), scenario.rounds)


@pytest.mark.parametrize(
    "ways", [(by_yardstick, Plain.fedavg), (by_devices, Plain.alone)], ids=["fedavg", "local"]
)
def test_of_whole_batches_it_is_the_same_network(ways, tmp_path: Path) -> None:
    """Breaks if averaging or local training is anything but what is written down: with a batch that holds all of a
    client's rows no order of theirs is left to differ in."""
    fleet = 'fleet=[{device="jetson-nano",count=4}]'
    quick = ("engine.kind=inline", "rounds=3", "training.epochs=2", fleet)
    whole = ("training.batch_size=4096", "training.learning_rate=0.02")
    network = ("model.name=resnet8", "model.args.width=0.25", "model.factory.epochs=3")
    scenario = load_scenario("quickstart", [*quick, *DENSE, *whole, *network])
    of_fedge, of_pytorch = ways
    assert of_fedge(scenario, tmp_path) == pytest.approx(of_pytorch(Plain(scenario)), abs=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(os.environ.get("FEDGE_DATA", "data")) / "cifar-10-batches-py").is_dir(), reason="CIFAR-10"
)
@pytest.mark.parametrize(
    "ways", [(by_yardstick, Plain.fedavg), (by_devices, Plain.alone)], ids=["fedavg", "local"]
)
def test_on_real_data_it_ends_where_plain_pytorch_ends(ways, tmp_path: Path) -> None:
    """Breaks if twenty devices with two classes of CIFAR-10 each end more than a point from where another program
    brings them, whose batches and crops are drawn otherwise."""
    plain = ("training.answers=all", "training.decay={kind='constant'}", "training.learning_rate=0.02")
    scenario = load_scenario("cifar10-pathological", [*DENSE, *plain, "engine.kind=inline"])
    of_fedge, of_pytorch = ways
    means = [statistics.mean(found) for found in (of_fedge(scenario, tmp_path), of_pytorch(Plain(scenario)))]
    assert means[0] == pytest.approx(means[1], abs=0.01)
