"""A scenario against what is known of data sets, devices and client programs, before anything starts.

Torch-free and without opening a data file: these are the mistakes that can be named from facts alone.
"""

from collections.abc import Sequence
from pathlib import Path

from fedge.catalog.datasets import DATASETS, dataset_facts
from fedge.catalog.facts import DatasetFacts
from fedge.catalog.files import client_path, policy_path, scenario_path
from fedge.catalog.names import LOSSES
from fedge.errors import UserError
from fedge.scenario.data import Given, Natural, Pathological, Shards, Subsets
from fedge.scenario.file import read_scenario
from fedge.scenario.hardware.gpus import check_gpus
from fedge.scenario.schema import Scenario
from fedge.scenario.stream.checks import check_stream
from fedge.scenario.training import Training


def load_scenario(name: str, changes: Sequence[str] = (), *, beside: Path | None = None) -> Scenario:
    """A checked scenario: a name in `scenarios/` or the path of a TOML file, with `--set` changes applied.

    Paths in the file are relative to it, those in `changes` to `beside`, or else to the working directory.
    Raises UserError with one line: what, got, allowed, what to do.
    """
    scenario = read_scenario(scenario_path(name), changes, beside=beside)
    check(scenario)
    return scenario


def check(scenario: Scenario) -> None:
    """Raise UserError for the first thing in `scenario` that cannot be, as far as facts tell."""
    facts = dataset_facts(scenario.data.dataset)
    for device_class in scenario.fleet:
        scenario.profile_of(device_class)
    check_gpus(scenario)
    client_path(scenario.client_program)
    if policy := scenario.schedule.named:
        policy_path(policy)
    _check_task(scenario, facts)
    _check_samples(scenario, facts)
    _check_split(scenario, facts)
    _check_least_count(scenario, facts)
    check_stream(scenario, facts)
    match scenario.data.partition:
        case Pathological(classes=classes):
            _check_pathological(classes, facts)
        case Shards(per_client=per_client):
            _check_shards(per_client, scenario, facts)
        case Natural():
            _check_natural(scenario, facts)
        case Subsets():
            _check_subsets(facts)
        case Given(file=file):
            _check_given(file)


def _check_task(scenario: Scenario, facts: DatasetFacts) -> None:
    """What is asked of the network fits the data's task: partition, losses, tolerance."""
    kind = scenario.data.partition.kind
    if facts.task != "classes" and kind in ("dirichlet", "pathological", "shards", "subsets"):
        raise UserError(
            f"data.partition kind {kind!r} divides by class, and {facts.name!r} has task {facts.task!r}: take iid, "
            "natural or given"
        )
    losses = {
        "training": scenario.training.loss,
        **{f"fleet.{n}.training": scenario.training_of(each).loss for n, each in enumerate(scenario.fleet)},
        "model.factory": scenario.model.factory.loss,
    }
    for section, loss in losses.items():
        if loss is not None and loss.kind not in LOSSES[facts.task]:
            raise UserError(
                f"{section}.loss.kind is {loss.kind!r}, and {facts.name!r} has task {facts.task!r}: take "
                f"{' or '.join(LOSSES[facts.task])}, or leave loss out"
            )
    _check_answers(scenario, facts)
    if facts.task != "classes" and scenario.training.exits is not None:
        raise UserError(
            f"training.exits is for task 'classes', and {facts.name!r} has task {facts.task!r}: leave it out"
        )
    tolerance = scenario.data.tolerance
    if tolerance is not None and facts.task != "numbers":
        raise UserError(
            f"data.tolerance is for task 'numbers', and {facts.name!r} has task {facts.task!r}: leave it out"
        )
    if isinstance(tolerance, tuple) and len(tolerance) != facts.num_classes:
        raise UserError(
            f"data.tolerance has {len(tolerance)} entries and {facts.name!r} {facts.num_classes} numbers; one for all "
            "is wanted, or one for each"
        )


def _check_answers(scenario: Scenario, facts: DatasetFacts) -> None:
    trainings = [scenario.training, *map(scenario.training_of, scenario.fleet)]
    if facts.task == "classes":
        return
    for key, unset in (("answers", "all"), ("prior", "none"), ("source", None)):
        value = next((v for v in (getattr(each, key) for each in trainings) if v != unset), unset)
        if value != unset:
            raise UserError(
                f"training.{key} is {value!r}, which is for task 'classes', and {facts.name!r} has task "
                f"{facts.task!r}: leave it out"
            )


def _rows_left(scenario: Scenario, facts: DatasetFacts) -> int:
    """Rows for the clients, as `fedge.data.partition` cuts them."""
    return facts.size - round(facts.size * scenario.data.factory_fraction)


def _check_samples(scenario: Scenario, facts: DatasetFacts) -> None:
    left = _rows_left(scenario, facts)
    if left == facts.size and scenario.model.factory.epochs:
        raise UserError(
            f"data.factory_fraction is {scenario.data.factory_fraction:g}, which of {facts.size:,} rows leaves the "
            "factory model none to train on: raise it, or set model.factory.epochs to 0"
        )
    if scenario.clients > left:
        raise UserError(
            f"fleet has {scenario.clients} clients and {facts.name!r} has {left} samples for them (of {facts.size}, "
            f"after data.factory_fraction {scenario.data.factory_fraction}); lower the counts or factory_fraction"
        )


def _check_least_count(scenario: Scenario, facts: DatasetFacts) -> None:
    """A mean client's loss and accuracy are of so many samples; those that have fewer are seen to on their devices."""
    least, split = scenario.privacy.least_count, scenario.data.split
    if least == 1:
        return
    rows = _rows_left(scenario, facts) / scenario.clients
    for part, share in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        if 0 < share * rows < least:
            raise UserError(
                f"privacy.least_count is {least} and a mean client has about {share * rows:.0f} {part} samples, of "
                "which nothing may be told: lower privacy.least_count, or take fewer clients"
            )
    samples = split.train * rows
    _check_kept(scenario.training, samples, least)
    for index, device_class in enumerate(scenario.fleet):
        _check_kept(scenario.training_of(device_class), samples, least, f"fleet.{index}.")


def _check_kept(training: Training, samples: float, least: int, whose: str = "") -> None:
    chosen = training.instance_filter
    kept = samples // least * least * (1.0 if chosen.kind == "none" else chosen.keep)
    if kept < least:
        raise UserError(
            f"{whose}training.instance_filter.keep is {chosen.keep:g} of about {samples:.0f} samples, which trains on "
            f"{max(1, kept):.0f}: its loss would be theirs alone, and privacy.least_count is {least}: raise keep, or "
            "lower privacy.least_count"
        )


def _check_split(scenario: Scenario, facts: DatasetFacts) -> None:
    by = scenario.data.split.by
    if by != "row" and not facts.ordered:
        ordered = ", ".join(name for name, other in DATASETS.items() if other.ordered)
        raise UserError(
            f"data.split.by is {by!r}, which needs rows in the order of their recording; {facts.name!r} has none "
            f"({ordered} has; data of one's own where they were imported with a time): take 'row'"
        )


def left_out(scenario: Scenario) -> list[str]:
    """What the partition leaves to no client, as far as facts tell: one line each. A run tells it exactly."""
    facts, partition, clients = (
        dataset_facts(scenario.data.dataset),
        scenario.data.partition,
        scenario.clients,
    )
    left = _rows_left(scenario, facts)
    match partition:
        case Pathological(classes=classes) if (rest := facts.num_classes - clients * classes) > 0:
            return [
                f"data.partition 'pathological' gives {clients} clients {classes} classes each: at least {rest} of "
                f"{facts.num_classes} classes are left to no client"
            ]
        case Shards(per_client=per_client) if rest := left % (clients * per_client):
            return [f"data.partition 'shards' leaves {rest} of {left:,} rows to no client"]
        case Natural() if (rest := (facts.people or 0) - clients) > 0:
            return [
                f"data.partition 'natural' leaves the rows of {rest} of {facts.people} people to no client"
            ]
    return []


def _check_pathological(classes: int, facts: DatasetFacts) -> None:
    if classes > facts.num_classes:
        raise UserError(f"data.partition.classes is {classes}; {facts.name!r} has {facts.num_classes}")


def _check_shards(per_client: int, scenario: Scenario, facts: DatasetFacts) -> None:
    left = _rows_left(scenario, facts)
    if scenario.clients * per_client > left:
        raise UserError(
            f"data.partition.per_client is {per_client}: {scenario.clients} clients need "
            f"{scenario.clients * per_client} shards, and {facts.name!r} has {left} rows for them; "
            f"at most {left // scenario.clients}"
        )


def _check_natural(scenario: Scenario, facts: DatasetFacts) -> None:
    if facts.people is None:
        raise UserError(
            f"data.partition kind 'natural' needs data with owners; {facts.name!r} has none (har does; data "
            "of one's own where they were imported with owners): choose another kind"
        )
    if scenario.clients > facts.people:
        raise UserError(
            f"data.partition kind 'natural' gives each client one person: fleet has {scenario.clients} clients, "
            f"{facts.name!r} has {facts.people} people"
        )


def _check_subsets(facts: DatasetFacts) -> None:
    if facts.name != "cifar100":
        raise UserError(f"data.partition kind 'subsets' is for cifar100; data.dataset is {facts.name!r}")


def _check_given(file: str) -> None:
    if not Path(file).is_file():
        raise UserError(f"data.partition.file {file}: no such file; a csv of row,client is wanted")
