"""Membership on the personal models: arms, strangers, and networks that do and do not remember."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedge.audit import membership
from fedge.audit.membership import ARMS, Attacked, arm, difference
from fedge.audit.worlds import World
from fedge.data.shard import Shard


def attacked(lead: float, name: str = "pruned", clients: int = 6) -> Attacked:
    chance = np.random.default_rng(7)
    members = [lead + chance.normal(size=80) for _ in range(clients)]
    return Attacked(name, members, [chance.normal(size=60) for _ in range(clients)])


def test_what_a_network_remembers_shows_and_what_it_does_not_does_not(monkeypatch) -> None:
    """Breaks if an attack that works is called none, or the reverse; or if a figure stands without its trials."""
    monkeypatch.setattr(membership, "_DRAWS", 80)
    chance, nothing = np.random.default_rng(0), attacked(0.0, "dense")
    seen = attacked(2.0).as_json(nothing, chance)
    assert seen["area_under_curve"] > 0.85 and seen["true_positives"]["low"] > 0.2
    assert seen["area_against_dense"]["interval"][0] > 0.3
    assert (seen["members"], seen["outsiders"], seen["clients"]) == (480, 360, 6)
    said = nothing.as_json(nothing, chance)
    assert said["area_under_curve"] == pytest.approx(0.5, abs=0.05) and "area_against_dense" not in said
    assert said["true_positives"]["low"] < 0.02
    same = difference(nothing, nothing, chance)
    assert same["mean"] == 0 and same["interval"] == [0, 0]


def test_arms_differ_in_one_method(small) -> None:
    """Breaks if the pruned arm filters, the filtered one prunes, or a class's own training undoes an arm."""
    scenario = small("fleet.0.training.pruning.level=0.9")
    settings = {}
    for name in ARMS:
        training = arm(scenario, name).training_of(arm(scenario, name).fleet[0])
        settings[name] = (training.pruning.level, training.instance_filter.kind, training.error_maps.keep)
    assert settings == {
        "dense": (0.0, "none", 1.0), "pruned": (0.5, "none", 1.0), "filtered": (0.0, "early", 1.0),
    }  # fmt: skip
    plain = small("training.pruning.level=0", "training.instance_filter.kind=none")
    assert arm(plain, "pruned").training.pruning.level == membership.USUAL_LEVEL
    assert arm(plain, "filtered").training.instance_filter.keep == membership.USUAL_KEEP


def test_strangers_have_the_clients_labels_and_none_of_its_rows() -> None:
    """Breaks if the reference network has seen a member, or is told by other classes than the client's."""
    own = []
    for client in range(4):
        x = np.full((30, 1, 1, 1), client, np.float32) + np.arange(30)[:, None, None, None] / 100
        y = np.arange(30) % (2 if client == 0 else 5)
        own.append({"train": (x.astype(np.float32), y), "validation": (x[:3], y[:3]), "test": (x[:3], y[:3])})
    rows, (population_x, population_y) = membership._others(own, 0, np.random.default_rng(0))
    x, y = rows["train"]
    assert np.array_equal(np.bincount(y), [9, 9])  # half of what the others have of each
    assert x.min() >= 1 and population_x.min() >= 1
    assert not np.isin(population_x, x).any() and set(population_y) == {0, 1}
    assert np.array_equal(rows["test"][0], own[0]["test"][0])


class Remembers(torch.nn.Module):
    """Sure of the rows whose first value it has been given, unsure of all others."""

    def __init__(self, known: set[float]) -> None:
        super().__init__()
        self.known = known

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        sure = torch.tensor([float(round(float(x.reshape(-1)[0]), 3) in self.known) for x in x_BCHW])
        return torch.stack([3 * sure, torch.zeros(len(sure))], dim=1)


def test_a_network_that_knows_its_rows_by_heart_is_seen_through(planted, tmp_path, monkeypatch) -> None:
    """Breaks if RMIA's ratio or its ranks are computed so that even perfect memory does not show."""
    planted()
    own = Shard.open(tmp_path / "data" / "shards", 0)
    first_N = own.arrays("train")[0].reshape(own.count("train"), -1)[:, 0]
    known = {round(float((value - 0.4) / 0.3), 3) for value in first_N}
    networks = [
        Remembers(known),
        Remembers(set()),
    ] * 4  # of each part, the target and the reference are asked
    monkeypatch.setattr(membership, "rebuilt", lambda prepared, kept: networks.pop(0))
    monkeypatch.setattr(membership.Prepared, "open", lambda folder: None)
    arrays = Shard.arrays
    monkeypatch.setattr(
        Shard, "arrays", lambda self, part: (arrays(self, part)[0], 0 * arrays(self, part)[1])
    )
    world = World(SimpleNamespace(rounds=1), tmp_path / "data", tmp_path / "run")
    strangers = (np.random.default_rng(5).random((40, 1, 16, 16), np.float32), np.zeros(40, np.int64))
    members, outsiders = membership._scores(world, world, 0, strangers)
    assert len(members) == own.count("train") and len(outsiders) == 4
    assert members.min() > outsiders.max()
