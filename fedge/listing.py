"""What a scenario can name, kind by kind, as rows for `fedge list`."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fedge.catalog.datasets import DATASETS
from fedge.catalog.devices import PROFILES
from fedge.catalog.files import (
    client_names,
    client_path,
    policy_names,
    policy_path,
    scenario_names,
    scenario_path,
)
from fedge.catalog.text import read_program
from fedge.errors import UserError
from fedge.scenario.file import read_scenario

Row = dict[str, Any]


def listing(kind: str) -> list[Row]:
    """The rows of one kind. UserError names the kinds there are."""
    if kind not in KINDS:
        raise UserError(f"no list of {kind!r}; there are {', '.join(KINDS)}")
    return KINDS[kind]()


def _datasets() -> list[Row]:
    rows = [asdict(facts) for facts in DATASETS.values()]
    return [{key: value for key, value in row.items() if key != "reader"} for row in rows]


def _models() -> list[Row]:
    """Sizes as built for 32 x 32 colour pictures of 10 classes, or for the data a model is made for."""
    from fedge.models import MODELS, build
    from fedge.training.macs import count_macs

    rows = []
    for name in MODELS:
        facts = DATASETS[_HOME.get(name, "cifar10")]
        model = build(
            name, num_classes=facts.num_classes, in_channels=facts.shape[0], image_size=facts.shape[1:]
        )
        rows.append(
            {
                "name": name,
                "for": facts.name,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "macs_forward": count_macs(model, facts.shape).forward,
            }
        )
    return rows


_HOME = {"lenet": "mnist", "har_cnn": "har"}


def _devices() -> list[Row]:
    return [asdict(profile) for profile in PROFILES.values()]


def _partitions() -> list[Row]:
    from fedge.data.partition import PARTITIONS

    return [{"kind": kind, "meaning": meaning} for kind, meaning in PARTITIONS.items()]


def _clients() -> list[Row]:
    return [{"name": name, "purpose": _docstring(read_program(client_path(name)))} for name in client_names()]


def _policies() -> list[Row]:
    return [{"name": name, "purpose": _docstring(read_program(policy_path(name)))} for name in policy_names()]


def _docstring(source: str) -> str:
    return source.split('"""')[1].strip().splitlines()[0] if '"""' in source else ""


def _scenarios() -> list[Row]:
    rows = []
    for name in scenario_names():
        scenario = read_scenario(scenario_path(name))
        rows.append(
            {
                "name": name,
                "dataset": scenario.data.dataset,
                "partition": scenario.data.partition.kind,
                "model": scenario.model.label,
                "clients": scenario.clients,
                "rounds": scenario.rounds,
            }
        )
    return rows


KINDS: dict[str, Callable[[], list[Row]]] = {
    "datasets": _datasets,
    "models": _models,
    "devices": _devices,
    "partitions": _partitions,
    "clients": _clients,
    "policies": _policies,
    "scenarios": _scenarios,
}
