"""Membership on the personal models: who steals a device, does its network tell which rows it was trained on?

RMIA (Zarifzadeh, Liu, Shokri 2024) with one reference model, per client. The ratio of a row is the network's
probability of its label over what networks give it that have not seen it; a row's score is the share of rows of a
population, which nobody's network has seen, whose ratio is below it.

    target       the client's network, trained on its own training rows: the members
    reference    a network made the same way from as many rows of the same labels, of other clients
    outsiders    the client's own validation and test rows
    population   rows of the same labels, of other clients, that the reference has not seen

Three arms, which start from the same factory model: dense, pruned, filtered. An arm's difference to dense is paired:
the same clients are drawn in both, over and over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedge.audit.bounds import CONFIDENCE, area_under_curve, true_positives
from fedge.audit.worlds import Part, Rows, World, changed, picked, rows_of
from fedge.data.shard import Shard
from fedge.device.network import rebuilt
from fedge.device.state import KeptNetwork, StateFolder
from fedge.prepare import Prepared
from fedge.scenario.schema import Scenario
from fedge.scenario.training import EarlyFilter, OtherFilter, Training

ARMS = ("dense", "pruned", "filtered")
FALSE_POSITIVES = 0.01
USUAL_LEVEL, USUAL_KEEP = 0.5, 0.4  # of an arm whose method the scenario does not use
_OFFLINE = (
    0.3  # RMIA's a: how far a network's probability is above a stranger's where no network has seen a row
)
_POPULATION = 300  # rows per client
_DRAWS = 500  # of clients, for intervals
_BATCH = 256

Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Attacked:
    """Per client the scores of its members and of its outsiders, in one arm."""

    arm: str
    members: list[Scores]
    outsiders: list[Scores]

    @property
    def area(self) -> float | None:
        """Pooled over the clients."""
        return area_under_curve(np.concatenate(self.members), np.concatenate(self.outsiders))

    def as_json(self, dense: "Attacked", chance: np.random.Generator) -> dict[str, Any]:
        members, outsiders = np.concatenate(self.members), np.concatenate(self.outsiders)
        found = true_positives(members, outsiders, false_positives=FALSE_POSITIVES)
        said: dict[str, Any] = {
            "arm": self.arm,
            "clients": len(self.members),
            "members": len(members),
            "outsiders": len(outsiders),
            "false_positives": FALSE_POSITIVES,
            "true_positives": found and found.as_json(),
            "area_under_curve": self.area,
        }
        if self is not dense:
            said["area_against_dense"] = difference(self, dense, chance)
        return said


def arm(scenario: Scenario, name: str) -> Scenario:
    """The scenario with one of the methods, or none, for all its classes."""
    training = scenario.training
    level = training.pruning.level
    changes: dict[str, Any] = {
        "pruning": training.pruning.model_copy(update={"level": 0.0}),
        "instance_filter": OtherFilter(),
        "error_maps": training.error_maps.model_copy(update={"keep": 1.0, "target": 0.0}),
    }
    if name == "pruned":
        pruned = (
            training.pruning if level != 0 else training.pruning.model_copy(update={"level": USUAL_LEVEL})
        )
        changes["pruning"] = pruned
    if name == "filtered":
        chosen = training.instance_filter
        usual = EarlyFilter(kind="early", keep=USUAL_KEEP)
        changes["instance_filter"] = chosen if chosen.kind != "none" else usual
    fleet = tuple(each.model_copy(update={"training": {}}) for each in scenario.fleet)
    changed_training: Training = training.model_copy(update=changes)
    return scenario.model_copy(update={"training": changed_training, "fleet": fleet})


def worlds(
    scenario: Scenario, prepared: Path, chosen: Sequence[int], folder: Path, chance: np.random.Generator
) -> tuple[list[World], list[Part]]:
    """Per arm the run of the targets and that of the references; and each client's population."""
    own = [rows_of(prepared, client) for client in chosen]
    strangers, population = zip(*(_others(own, place, chance) for place in range(len(own))), strict=True)
    targets = changed(prepared, own, folder / "targets")
    references = changed(prepared, strangers, folder / "references")
    made = [
        World(arm(scenario, name), data, folder / f"{name}-{data.name}")
        for name in ARMS
        for data in (targets, references)
    ]
    return made, list(population)


def _others(own: Sequence[Rows], place: int, chance: np.random.Generator) -> tuple[Rows, Part]:
    """A client's rows, with strangers' training rows of the same labels for its own; and a population of them."""
    x, y = (
        np.concatenate([rows["train"][which] for at, rows in enumerate(own) if at != place])
        for which in (0, 1)
    )
    taken: list[int] = []
    left: list[int] = []
    labels, counts = np.unique(own[place]["train"][1], return_counts=True)
    for label, count in zip(labels, counts, strict=True):
        rows = chance.permutation(np.flatnonzero(y == label))
        half = min(int(count), -(-len(rows) // 2))
        taken += rows[:half].tolist()
        left += rows[half : half + int(count)].tolist()
    stranger = picked((x, y), chance.permutation(np.array(taken or [0], np.int64)))
    population = picked((x, y), chance.permutation(np.array(left or taken or [0], np.int64))[:_POPULATION])
    return {**own[place], "train": stranger}, population


def audit(
    made: Sequence[World], population: Sequence[Part], chance: np.random.Generator
) -> list[dict[str, Any]]:
    """What each arm tells, from the folders that the runs of `worlds` have left."""
    attacked = []
    for name, target, reference in zip(ARMS, made[::2], made[1::2], strict=True):
        scores = [_scores(target, reference, client, part) for client, part in enumerate(population)]
        attacked.append(Attacked(name, [held for held, _ in scores], [held for _, held in scores]))
    return [each.as_json(attacked[0], chance) for each in attacked]


def _scores(target: World, reference: World, client: int, population: Part) -> tuple[Scores, Scores]:
    """RMIA's scores of a client's members and of its outsiders, 0..1."""
    shard = Shard.open(target.data / "shards", client)
    parts = [shard.arrays(split) for split in ("train", "validation", "test")]
    ratios = [_ratios(target, reference, shard, client, part) for part in (*parts, population)]
    sorted_Z = np.sort(ratios[-1])
    ranks = [np.searchsorted(sorted_Z, ratio, side="left") for ratio in ratios[:-1]]
    ranks = [
        rank + np.searchsorted(sorted_Z, ratio, side="right")
        for rank, ratio in zip(ranks, ratios, strict=False)
    ]
    shares = [rank / 2 / max(1, len(sorted_Z)) for rank in ranks]
    # beyond the population's ends the ratio itself goes on telling rows apart
    finer = [share + 1e-6 * np.tanh(ratio) for share, ratio in zip(shares, ratios, strict=False)]
    return finer[0], np.concatenate(finer[1:])


def _ratios(target: World, reference: World, shard: Shard, client: int, rows: Part) -> Scores:
    own_N, strange_N = (probabilities(world, shard, client, rows) for world in (target, reference))
    unseen_N = ((1 + _OFFLINE) * strange_N + 1 - _OFFLINE) / 2
    return own_N / unseen_N


def probabilities(world: World, shard: Shard, client: int, rows: Part) -> Scores:
    """What the network that a client ended with in that run gives each row's label, 0..1."""
    state = StateFolder(world.out / "devices" / str(client)).at(world.scenario.rounds)
    prepared = Prepared.open(world.data)
    kept = KeptNetwork(state.topology, state.model) if state else KeptNetwork(None, {})
    if state and state.served and state.served.network:
        kept = state.served.network
    model = rebuilt(prepared, kept).eval()
    said = [np.empty(0)]
    with torch.inference_mode():
        for x_BCHW, y_B in shard.with_training(*rows).batches("train", _BATCH):
            share_BK = model(x_BCHW).softmax(dim=1)
            said.append(share_BK.gather(1, y_B[:, None])[:, 0].double().numpy())
    return np.concatenate(said)


def difference(one: Attacked, dense: Attacked, chance: np.random.Generator) -> dict[str, Any] | None:
    """The area under an arm's curve less dense's, with its interval over clients; None where there is no area."""
    if one.area is None or dense.area is None:
        return None
    drawn = []
    for _ in range(_DRAWS):
        clients = chance.integers(0, len(one.members), len(one.members))
        areas = [
            area_under_curve(
                np.concatenate([each.members[client] for client in clients]),
                np.concatenate([each.outsiders[client] for client in clients]),
            )
            for each in (one, dense)
        ]
        if None not in areas:
            drawn.append(float(areas[0] or 0.0) - float(areas[1] or 0.0))
    tail = (1 - CONFIDENCE) / 2
    interval = [float(end) for end in np.quantile(drawn, [tail, 1 - tail])] if drawn else None
    return {"mean": one.area - dense.area, "interval": interval, "clients": len(one.members)}
