"""No figure of fewer than `privacy.least_count` samples leaves, and a plan that would make one is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

import fedge
from fedge.data.shard import Shard
from fedge.errors import UserError
from fedge.forecast import plan_scenario
from fedge.scenario.schema import Scenario

SIZES = ("samples_seen", "samples_kept", "validation_count", "test_count")
FEW = ("training.instance_filter={kind='random', keep=0.01}", "client=edge")


@pytest.mark.long
def test_sizes_and_what_is_of_them_are_of_so_many(small: Callable[..., Scenario], tmp_path: Path) -> None:
    """Breaks if a count of a client's samples is not a multiple of least_count, or a share is no longer exact."""
    rows = fedge.run(small("privacy.least_count=8", "client=dense"), tmp_path / "out").reports()
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row[size] % 8 == 0 and row[size] for row in rows for size in SIZES)
    assert all(row["test_correct"] <= row["test_count"] for row in rows)
    assert len({row["macs_dense"] // row["samples_seen"] for row in rows}) == 1  # nor do MACs tell the size


def test_a_part_with_fewer_has_none(shards: Path) -> None:
    """Breaks if the last samples of a small part are told of, or if a part loses more than it must."""
    shard = Shard.open(shards, 0)
    counts = {part: shard.count(part) for part in ("train", "validation", "test")}
    cut = shard.in_multiples_of(4)
    assert {part: cut.count(part) for part in counts} == {part: n // 4 * 4 for part, n in counts.items()}
    assert (cut.arrays("train")[0] == shard.arrays("train")[0][: len(cut)]).all()
    none = shard.in_multiples_of(10_000)
    assert not len(none) and not list(none.batches("test", 8)) and none.own_classes == ()


@pytest.fixture
def shards(small: Callable[..., Scenario]) -> Path:
    from fedge.prepare import prepare

    return Path(prepare(small()).folder) / "shards"


def test_a_plan_that_trains_on_one_sample_is_refused(small: Callable[..., Scenario]) -> None:
    """Breaks if `fedge plan` and `fedge run` let a filter make one private sample's loss a client's report."""
    with pytest.raises(
        UserError, match=r"keep is 0.01 of about \d+ samples, which trains on 1: .*least_count is 20"
    ):
        small(*FEW, "privacy.least_count=20")
    with pytest.raises(UserError, match=r"fleet.1.training.instance_filter.keep is 0.01"):
        small("privacy.least_count=20", "fleet.1.training={instance_filter={kind='random', keep=0.01}}")
    with pytest.raises(UserError, match=r"about \d+ validation samples, of which nothing may be told"):
        small("privacy.least_count=100")
    assert small("privacy.least_count=8").privacy.least_count == 8


@pytest.mark.long
def test_a_loss_of_too_few_samples_is_not_told(small: Callable[..., Scenario], tmp_path: Path) -> None:
    """Breaks if a policy, or a program's own filter, gets one sample's loss out where the scenario forbids it."""
    body = "device.train(instance_filter=FirstAlone(keep=0.5, seed=1))\n    return device.report()"
    (tmp_path / "few.py").write_text(PROGRAM.format(body=body))
    changes = (
        "privacy.least_count=8",
        f"client={tmp_path / 'few.py'}",
        "training.epochs=2",
        "training.batch_size=512",
    )
    rows = fedge.run(small(*changes), tmp_path / "out").reports()
    assert {(row["status"], row["samples_kept"]) for row in rows} == {("ok", 2)}  # one in each of two epochs
    assert all("train_loss" not in row and row["epoch_loss"] == [] for row in rows)
    rows = fedge.run(small(*changes, "privacy.least_count=1"), tmp_path / "told").reports()
    assert all(row["train_loss"] > 0 and len(row["epoch_loss"]) == 2 for row in rows)


def test_the_forecast_of_what_leaves_holds(small: Callable[..., Scenario], finished) -> None:
    """Breaks if the bytes and bits that `fedge plan` names are not those of the reports."""
    row = plan_scenario(small())[0]
    assert row["sent_bits_at_most"] == finished().summary["egress"]["bits_at_most"]
    assert finished().summary["privacy"]["least_count"] == 1


PROGRAM = """
from flwr.clientapp import ClientApp
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate
import torch
from fedge.training.instance_filter.base import Filter

app = ClientApp(mods=[egress_gate])

class FirstAlone(Filter):
    def select(self, batch):
        return torch.tensor([0]), None

@app.train()
@on_device
def improve(device, plan):
    {body}
"""
