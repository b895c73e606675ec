"""A scenario against what is known of data sets, devices and client programs, before anything starts.

Torch-free and without opening a data file: these are the mistakes that can be named from facts alone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from fedge.catalog.datasets import DatasetFacts, dataset_facts
from fedge.catalog.devices import profile
from fedge.catalog.files import client_path, scenario_path
from fedge.errors import UserError
from fedge.scenario.file import read_scenario
from fedge.scenario.schema import Scenario


def load_scenario(name: str, changes: Sequence[str] = ()) -> Scenario:
    """A checked scenario: a name in `scenarios/` or the path of a TOML file, with `--set` changes applied.

    Raises UserError with one line: what, got, allowed, what to do.
    """
    path = scenario_path(name)
    scenario = read_scenario(path, changes)
    check(scenario, beside=path.parent)
    return scenario


def check(scenario: Scenario, beside: Path | None = None) -> None:
    """Raise UserError for the first thing in `scenario` that cannot be, as far as facts tell."""
    facts = dataset_facts(scenario.data.dataset)
    for device_class in scenario.fleet:
        profile(device_class.device)
    client_path(scenario.client)
    _check_samples(scenario, facts)
    _PARTITION_CHECKS.get(scenario.data.partition.kind, lambda *_: None)(scenario, facts)


def _rows_left(scenario: Scenario, facts: DatasetFacts) -> int:
    """Rows for the clients, as `fedge.data.partition` cuts them."""
    return facts.size - round(facts.size * scenario.data.factory_fraction)


def _check_samples(scenario: Scenario, facts: DatasetFacts) -> None:
    left = _rows_left(scenario, facts)
    if scenario.clients > left:
        raise UserError(
            f"fleet has {scenario.clients} clients and {facts.name!r} has {left} samples for them (of {facts.size}, "
            f"after data.factory_fraction {scenario.data.factory_fraction}); lower the counts or factory_fraction"
        )


def _check_pathological(scenario: Scenario, facts: DatasetFacts) -> None:
    if scenario.data.partition.classes > facts.num_classes:
        raise UserError(
            f"data.partition.classes is {scenario.data.partition.classes}; {facts.name!r} has {facts.num_classes}"
        )


def _check_shards(scenario: Scenario, facts: DatasetFacts) -> None:
    left, per_client = _rows_left(scenario, facts), scenario.data.partition.per_client
    if scenario.clients * per_client > left:
        raise UserError(
            f"data.partition.per_client is {per_client}: {scenario.clients} clients need "
            f"{scenario.clients * per_client} shards, and {facts.name!r} has {left} rows for them; "
            f"at most {left // scenario.clients}"
        )


def _check_natural(scenario: Scenario, facts: DatasetFacts) -> None:
    if facts.people is None:
        raise UserError(
            f"data.partition kind 'natural' needs data with owners; {facts.name!r} has none (har does)"
        )
    if scenario.clients > facts.people:
        raise UserError(
            f"data.partition kind 'natural' gives each client one person: fleet has {scenario.clients} clients, "
            f"{facts.name!r} has {facts.people} people"
        )


def _check_subsets(scenario: Scenario, facts: DatasetFacts) -> None:
    if facts.name != "cifar100":
        raise UserError(f"data.partition kind 'subsets' is for cifar100; data.dataset is {facts.name!r}")


_PARTITION_CHECKS: dict[str, Callable[[Scenario, DatasetFacts], None]] = {
    "pathological": _check_pathological,
    "shards": _check_shards,
    "natural": _check_natural,
    "subsets": _check_subsets,
}
