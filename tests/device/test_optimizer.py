"""The settings' optimizer and decay on a device: against plain PyTorch, round by round."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import fedge
from fedge.data.shard import Shard
from fedge.device.memory.demand import peak_bytes
from fedge.device.state import StateFolder
from fedge.errors import UserError
from fedge.forecast import plan_scenario
from fedge.prepare import prepare
from fedge.seeding import derive_seed

OFF = ("training.pruning.level=0", "training.instance_filter.kind=none", "training.error_maps.keep=1.0")
ADAMW = "training.optimizer={kind='adamw',betas=[0.8,0.99],weight_decay=0.05}"
COSINE = "training.decay={kind='cosine'}"
KINDS = {
    ADAMW: lambda p: torch.optim.AdamW(p, lr=0.003, betas=(0.8, 0.99), weight_decay=0.05),
    "training.optimizer={kind='adam',eps=1e-6}": lambda p: torch.optim.Adam(p, lr=0.003, eps=1e-6),
    "training.optimizer={nesterov=true}": lambda p: torch.optim.SGD(p, lr=0.003, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per", ["run", "round"])
def test_it_is_pytorchs_with_pytorchs_cosine(small, tmp_path, kind: str, per: str) -> None:
    """Breaks if a key does not reach the optimizer, or if a round starts at another rate than the last one ended."""
    scenario = small(*OFF, kind, f"training.decay={{kind='cosine',per='{per}'}}", "training.epochs=2")
    result = fedge.run(scenario, tmp_path)
    prepared = prepare(scenario)
    model, shard = prepared.factory_model().train(), Shard.open(Path(prepared.folder) / "shards", 0)
    batches = -(-shard.count("train") // scenario.training.batch_size)
    done = 0
    for round in (1, 2):
        optimizer = KINDS[kind](model.parameters())
        of = (2 if per == "run" else 1) * 2 * batches
        done = done if per == "run" else 0
        for epoch in range(2):
            seed = derive_seed(scenario.seed, 0, round, "shuffle", epoch)
            for x, y in shard.batches("train", 16, seed=seed, order=torch.channels_last):
                optimizer.param_groups[0]["lr"] = (
                    0.003 * (1 + torch.cos(torch.tensor(torch.pi * done / of))) / 2
                )
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                done += 1
    trained = StateFolder(tmp_path / "devices" / "0").at(2).model
    assert all(
        torch.allclose(trained[name], tensor, atol=1e-5) for name, tensor in model.state_dict().items()
    )
    assert {row["optimizer"] for row in result.reports()} == {scenario.training.optimizer.kind}


def test_a_client_that_misses_a_round_follows_its_number(opened) -> None:
    """Breaks if the rate of a late client is that of an early round."""
    device = opened(*OFF, COSINE, "rounds=4", round=3)
    assert device._round.local.span(0, 1)["start"] == 0.5


def test_memory_and_forecast_know_the_optimizers_state(opened, small) -> None:
    """Breaks if a device, or the forecast, gives Adam the room of plain SGD."""
    needs = []
    for kind in ("{momentum=0.0}", "{momentum=0.9}", "{kind='adam'}"):
        changes = (*OFF, f"training.optimizer={kind}")
        device = opened(*changes)
        device.train()
        asked = device.report().memory_bytes
        assert asked == plan_scenario(small(*changes))[0]["memory_need_bytes"]
        assert asked == int(1.06 * peak_bytes(device.model, device.training, 16, device.shard.shape))
        needs.append(asked)
    weights = 4 * sum(parameter.numel() for parameter in device.model.parameters())
    assert needs[0] < needs[1] < needs[2] and needs[2] - needs[1] == pytest.approx(1.06 * weights, rel=0.05)


def test_a_run_whose_rate_falls_over_all_rounds_is_not_made_longer(small, tmp_path) -> None:
    """Breaks if a run goes on for more rounds and is then no function of its scenario."""
    fedge.run(small(*OFF, COSINE), tmp_path)
    with pytest.raises(UserError, match="falls over all 2 rounds"):
        fedge.run(small(*OFF, COSINE, "rounds=3"), tmp_path, resume=True)
