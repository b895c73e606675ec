"""Clients that a yardstick does not learn from: served with what the others have learnt, at the end."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fedge.data.shard import Shard
from fedge.fleet.newcomers import unseen_clients
from fedge.prepare import prepare
from fedge.scenario.schema import Scenario
from fedge.study.outcome import outcomes
from fedge.training.loop import evaluate
from fedge.yardsticks.fleet import Fleet
from fedge.yardsticks.methods import YARDSTICKS
from tests.yardsticks.test_run import reports, small

pytestmark = pytest.mark.long

SHARE = "schedule.unseen=0.2"  # one of three
NORMED = ("model.name=resnet8", "model.args.width=0.25")


def newcomer() -> int:
    (client,) = unseen_clients(small(SHARE))
    return client


def right(model: torch.nn.Module, scenario: Scenario, client: int) -> int:
    shard = Shard.open(Path(prepare(scenario).folder) / "shards", client)
    return evaluate(model, shard.batches("test", 256)).correct


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("fedavg", "fedbn") else pytest.mark.long)
        for name in sorted(YARDSTICKS)
    ],
)
def test_nobody_learns_from_them(name: str, tmp_path: Path) -> None:
    """Breaks if an unseen client's weights reach anybody, or it takes part before the end."""
    other = f"fleet.{newcomer()}.training={{learning_rate=0.006, batch_size=8}}"
    found = {
        label: reports(name, small(SHARE, *NORMED, *settings), tmp_path / label)
        for label, settings in (("as they are", ()), ("trained otherwise", (other,)))
    }
    seen, late = (
        {label: [row for row in rows if ("unseen" in row) is kind] for label, rows in found.items()}
        for kind in (False, True)
    )
    assert seen["as they are"] == seen["trained otherwise"] and len(seen["as they are"]) == 4
    for (row,) in late.values():
        assert (row["client"], row["round"]) == (newcomer(), 3)
        trains = name != "fedavg"
        assert (row["macs_done"] > 0) is (row["samples_seen"] > 0) is trains
    losses = {row["train_loss"] for rows in late.values() for row in rows}
    assert len(losses) == (1 if name == "fedavg" else 2)
    summary = json.loads((tmp_path / "as they are" / "summary.json").read_text())
    per_way = summary["weights_bytes"] / (2 * 2 * 2)
    assert summary["unseen"]["weights_bytes"] == per_way and summary["unseen"]["clients"] == 1
    assert summary["accuracy"]["clients"] == 2 and summary["never_reported"] == 0
    assert summary["macs"]["done"] == sum(row["macs_done"] for row in seen["as they are"])
    assert [outcome.unseen for outcome in outcomes(found["as they are"], "last")].count(True) == 1


def served(name: str) -> tuple[Scenario, Fleet, dict[str, Any], torch.nn.Module]:
    """The newcomer's report after two rounds, and a network that holds the average from before it came."""
    scenario = small(SHARE, *NORMED)
    prepared = prepare(scenario)
    fleet, model = Fleet(YARDSTICKS[name], scenario, prepared), prepared.build_model()
    for round in (1, 2):
        fleet.round(round)
    model.load_state_dict(fleet.average)
    (row,) = fleet.welcome(3)
    return scenario, fleet, row, model


def test_the_average_serves_as_it_stands() -> None:
    """Breaks if fedavg's newcomer is served with the factory model, or with what it trained."""
    scenario, fleet, row, model = served("fedavg")
    assert row["test_correct"] == right(model, scenario, row["client"])
    assert all(torch.equal(tensor, fleet.average[name]) for name, tensor in model.state_dict().items())


def test_one_round_from_the_average_with_ones_own_norms() -> None:
    """Breaks if fedbn's newcomer has no norms of its own, or its other weights are not the average's."""
    scenario, fleet, row, model = served("fedbn")
    (client,) = fleet.newcomers
    assert client.own and set(client.own) == {name for name in client.own if name in fleet.average}
    assert any(not torch.equal(tensor, fleet.average[name]) for name, tensor in client.own.items())
    model.load_state_dict(fleet.average | client.own)
    assert row["test_correct"] == right(model, scenario, row["client"])
