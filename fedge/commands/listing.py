"""`fedge list`: what a scenario can name, kind by kind."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console

from fedge.catalog.datasets import DATASETS
from fedge.catalog.devices import PROFILES
from fedge.catalog.files import (
    client_names,
    client_path,
    policy_names,
    policy_path,
    scenario_names,
    scenario_path,
    study_names,
    study_path,
)
from fedge.catalog.text import read_program, read_text
from fedge.commands.options import AsJson
from fedge.errors import UserError
from fedge.progress import tell
from fedge.scenario.file import read_scenario

Row = dict[str, Any]


def list_command(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", hidden=True, autocompletion=lambda incomplete: kinds_like(incomplete)),
    ],
    as_json: AsJson = False,
) -> None:
    """List what a scenario can name.

    KIND: datasets, models, devices, partitions, clients, policies, scenarios or studies.
    """
    from fedge.console.progress import watched
    from fedge.console.table import rows_table

    with watched():
        rows = listing(kind)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        Console().print(rows_table(kind, rows))


def kinds_like(incomplete: str) -> list[str]:
    """The kinds that begin so."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


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
    tell("listing")
    from fedge.models import MODELS, build
    from fedge.training.macs import count_macs

    rows = []
    for index, name in enumerate(MODELS):
        tell("listing", index, len(MODELS))
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
    return [
        {key: value for key, value in asdict(profile).items() if key != "fingerprint"}
        for profile in PROFILES.values()
    ]


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


def _studies() -> list[Row]:
    rows = []
    for name in study_names():
        lines = read_text(study_path(name)).splitlines()
        rows.append({"name": name, "purpose": lines[0].lstrip("# ") if lines else ""})
    return rows


KINDS: dict[str, Callable[[], list[Row]]] = {
    "datasets": _datasets,
    "models": _models,
    "devices": _devices,
    "partitions": _partitions,
    "clients": _clients,
    "policies": _policies,
    "scenarios": _scenarios,
    "studies": _studies,
}
