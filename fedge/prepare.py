"""Before a run: load the data, divide it over the clients, train the factory model. Cached by content.

This is the world, not the server: it stands for what happened before the first round, when people took their own
pictures and the factory shipped its firmware. It runs where the devices run (under Ray, in a Ray task), and hands
back only what `Prepared` holds.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fedge.cache import prepared_folder, preparing
from fedge.catalog.facts import Task as TaskName
from fedge.catalog.text import read_text
from fedge.data.apart import write_apart
from fedge.data.dataset import DataSet
from fedge.data.datasets import load_dataset
from fedge.data.digests import damage, write_digests
from fedge.data.dividing.notices import division_notices
from fedge.data.known.pictures import first_line
from fedge.data.partition import divide
from fedge.data.shard import Shard, training_rows, write_shards
from fedge.data.stream.prepared import arranged, is_recorded, stream_key, write_arrivals
from fedge.environment import host_environment
from fedge.errors import FedgeError, RunError, UserError, is_out_of_memory
from fedge.network import NetworkSource
from fedge.network.blank import blank
from fedge.network.factory import initial_model, train_factory
from fedge.network.factory_exits import exits_trained
from fedge.network.objective import task_named, trained_by, transform_named
from fedge.network.shipped import shipped_bytes, write_shipped
from fedge.network.weights import weights_digest
from fedge.paths import data_root
from fedge.progress import latest_accuracy, listening, tell
from fedge.references import Programs, require_references
from fedge.scenario.data import Given
from fedge.scenario.file import parse_scenario
from fedge.scenario.schema import Scenario
from fedge.seeding import derive_seed
from fedge.training.features import Trunk
from fedge.training.heap import kept_heap
from fedge.training.macs import count_macs
from fedge.training.task import Task
from fedge.training.torch_device import gpu_facts, on_cpu, opened
from fedge.training.update.what import freeze

FORMAT = 6  # raised when what lies in a prepared folder changes


@dataclass(frozen=True)
class Prepared:
    """Where the clients' shards and the factory model lie, the size of that model, and what a person should know.

    `notices`: one line each, of rows that are nobody's and the like (fedge.data.dividing.notices).
    """

    folder: str
    network: NetworkSource
    num_classes: int
    input_shape: tuple[int, int, int]  # C, H, W
    parameters: int
    macs_training: int  # of the dense factory model, per instance, forward and backward
    notices: tuple[str, ...] = ()
    task: TaskName = "classes"
    target_std: tuple[float, ...] = ()  # of task numbers, per number and in its unit, over the factory's rows
    tolerance: tuple[float, ...] = ()  # of task numbers: what is right, per number; none: the task's own
    overlap: int = 0  # of a recorded stream: how many of a client's next rows share samples with a row

    @classmethod
    def open(cls, folder: Path) -> "Prepared":
        """Read a finished folder; it may have been moved since it was written."""
        facts = json.loads((folder / "prepared.json").read_text())
        own = {
            "folder": str(folder),
            "network": NetworkSource.from_table(facts["network"]),
            "input_shape": tuple(facts["input_shape"]),
            "notices": tuple(facts.get("notices", ())),
            "target_std": tuple(facts.get("target_std", ())),
            "tolerance": tuple(facts.get("tolerance", ())),
        }
        return cls(**facts | own)

    @property
    def asked(self) -> Task:
        """What the network is asked for, with the loss that is the task's own."""
        return task_named(self.task, scale=self.target_std, tolerance=self.tolerance)

    def build_model(self) -> nn.Module:
        """The factory model's constructor: its shape, not its weights."""
        return self.network.build(self.num_classes, self.input_shape)

    def blank(self, topology: str | None = None) -> nn.Module:
        """The network, cut as a topology's record says, whose weights are about to be loaded."""
        return blank(self.network, self.num_classes, self.input_shape, topology)

    def factory_model(self) -> nn.Module:
        """The factory model as it is shipped to every device (M_D)."""
        model = self.blank()
        model.load_state_dict(load_file(Path(self.folder) / "factory.safetensors"))
        return model


def prepare_json(
    scenario_json: str, tell: Callable[[Sequence[int]], None] | None = None
) -> dict[str, object]:
    """`prepare`, for a caller in another process: whatever goes wrong is a UserError or a RunError, in one line.

    `environment` says on what it, and the devices, run; `rows` how many training rows each client has, where the
    coordinator may know. tell: is given the numbers of `fedge.progress`.
    """

    scenario = parse_scenario(json.loads(scenario_json))
    require_references(scenario)
    try:
        with listening(tell and (lambda progress: tell(progress.numbers()))):
            prepared, weights = prepare(scenario), scenario.model.weights
        taken: dict[str, object] = {"weights": weights_digest(weights)} if weights else {}
        taken |= {"shipped_bytes": shipped} if (shipped := _shipped_bytes(scenario, prepared)) else {}
        host = {**host_environment(), **gpu_facts(opened(scenario.engine.device))}
        seen = scenario.privacy.whole_reports  # sums hide how many rows a client has
        rows = training_rows(Path(prepared.folder) / "shards") if seen else []
        return {**asdict(prepared), "environment": {**host, **taken}, "rows": rows}
    except FedgeError:
        raise
    except Exception as error:
        if os.environ.get("FEDGE_DEBUG"):
            raise
        reason = (
            "not enough memory" if is_out_of_memory(error) else f"{type(error).__name__}: {first_line(error)}"
        )
        raise RunError(
            f"preparing data set '{scenario.data.dataset}' for model '{scenario.model.label}' failed: {reason} "
            "(FEDGE_DEBUG=1 keeps the traceback)"
        ) from error


def prepare(scenario: Scenario) -> Prepared:
    """Prepare `scenario`, or find it prepared. Safe to call from many processes at once.

    The factory model is a function of the scenario: torch is set to `engine.threads`, wherever this runs. What was
    prepared before is read once to see that it is whole, and prepared anew where it is not.
    Raises UserError where the data are not there, not sound, or cannot be divided as asked; RunError where the
    factory model diverged.
    """
    torch.set_num_threads(scenario.engine.threads)
    opened(scenario.engine.device)  # before the data are read
    tell("reading")
    dataset = load_dataset(scenario.data.dataset, data_root(scenario.data.root))
    base = prepared_folder()
    folder = base / f"{dataset.name.rstrip('/')}-{scenario.model.label}-{_content_hash(scenario, dataset)}"
    with preparing(folder, scenario.name, usable=lambda: damage(folder) is None):
        wrong = damage(folder) if folder.is_dir() else ""
        if wrong is None:
            tell("cached")
        else:
            _write(scenario, dataset, folder)
            tell("prepared", accuracy=latest_accuracy())
        trainings = [scenario.training, *map(scenario.training_of, scenario.fleet)]
        write_shipped(folder, trainings, Prepared.open(folder).factory_model, scenario.world)
        if scenario.privacy.isolation == "client":
            _write_apart(folder, scenario.clients)
        prepared = Prepared.open(folder)
    _require_what(scenario, prepared)
    if wrong and scenario.engine.state != "sticky":  # nodes that prepare for themselves must answer alike
        line = f"the cached folder {folder} was damaged ({wrong}): it has been prepared anew"
        return replace(prepared, notices=(line, *prepared.notices))
    return prepared


def _write_apart(folder: Path, clients: int) -> None:
    try:
        write_apart(folder, clients)
    except OSError as error:
        raise RunError(
            f"{folder}: each client's own rows cannot be written: {error.strerror or first_line(error)}"
        ) from None


def _require_what(scenario: Scenario, prepared: Prepared) -> None:
    """UserError where the network has nothing of what a device class is to train (fedge.training.update.what)."""
    for what in {scenario.training_of(device_class).what for device_class in scenario.fleet} - {"all"}:
        freeze(prepared.build_model(), what, prepared.input_shape)


def _shipped_bytes(scenario: Scenario, prepared: Prepared) -> dict[str, int]:
    """By device class, what goes along with the factory model; empty where nothing does."""
    trainings = {each.label: scenario.training_of(each) for each in scenario.fleet}
    if not any(each.finds_prior or each.source for each in trainings.values()):
        return {}
    features = 0
    if any(each.source is not None for each in trainings.values()):
        features = Trunk.of(prepared.build_model(), prepared.input_shape).width
    return {label: shipped_bytes(each, prepared.num_classes, features) for label, each in trainings.items()}


def _content_hash(scenario: Scenario, dataset: DataSet) -> str:
    """Changes with anything that the prepared folder depends on: the data's bytes, the sections read, the versions."""
    data = scenario.data.model_dump(exclude={"root", "seed", "stream"}) | {"dataset": dataset.name}
    if stream := stream_key(scenario.data.stream):
        data["stream"] = stream
    if isinstance(given := scenario.data.partition, Given):
        data["partition"]["file"] = read_text(Path(given.file))
    choices = [scenario.world, scenario.clients, scenario.engine.threads, data, _network_key(scenario)]
    if scenario.engine.device != "cpu":
        choices.append(scenario.engine.device)
    key = json.dumps([FORMAT, torch.__version__, *choices], sort_keys=True)
    digest = hashlib.blake2b(key.encode(), digest_size=8)
    digest.update(dataset.digest.encode())
    for array in (dataset.x, dataset.y, dataset.subject):
        if array is not None and not dataset.digest:
            digest.update(np.ascontiguousarray(array).data.cast("B"))
    return digest.hexdigest()


def _network_key(scenario: Scenario) -> dict[str, object]:
    """What the factory model depends on, by content: a file's place plays no part."""
    model = scenario.model
    exits = scenario.training.exits
    source = NetworkSource.of(model, scenario.programs, exits)
    return {
        "source": {key: value for key, value in asdict(source).items() if key != "exits" or value},
        **({} if exits is None else {"exit_epochs": exits.factory_epochs}),
        "version": source.version,
        "weights": model.weights and weights_digest(model.weights),
        "reset": model.reset,
        "factory": model.factory.model_dump(exclude={"transform"}),
        "transform": _by_content(model.factory.transform, scenario.programs),
    }


def _by_content(reference: str, programs: Programs) -> object:
    """A word, or what it names and the text of the program that defines it."""
    where, _, name = reference.rpartition(":")
    return [name, asdict(programs[where])] if where in programs else reference


def _write(scenario: Scenario, dataset: DataSet, folder: Path) -> None:
    """Fill a folder beside `folder`, then move it there whole."""
    tell("network")
    model = initial_model(scenario, dataset.num_classes, dataset.x.shape[1:], dataset.task)
    tell("dividing")
    division = divide(dataset, scenario.data, clients=scenario.clients, seed=scenario.world)
    division, stream = arranged(dataset, division, scenario.data.stream), scenario.data.stream
    if not len(division.factory.train) and scenario.model.factory.epochs:
        raise UserError(_no_factory_rows(scenario, len(dataset)))
    notices = division_notices(dataset, division, scenario.data)
    for left in folder.parent.glob(f".{folder.name}-*"):  # by a preparation that was killed
        shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        tell("writing")
        for holders, name in ((division.clients, "shards"), ([division.factory], "factory-shard")):
            write_shards(dataset, holders, partial / name, targets_of=division.factory.train)
        with kept_heap():
            prepared = replace(_factory(scenario, model, partial), notices=tuple(notices))
        if is_recorded(stream):
            prepared = replace(prepared, overlap=dataset.overlap)
        write_arrivals(partial, stream, scenario.clients)
        # Under its final name: equal preparations leave equal files.
        (partial / "prepared.json").write_text(_facts(replace(prepared, folder=folder.name)))
        write_digests(partial)
        shutil.rmtree(folder, ignore_errors=True)  # left by a crash, or by an older format
        partial.rename(folder)
    except OSError as error:
        raise RunError(
            f"{folder}: the prepared data cannot be written: {error.strerror or first_line(error)}"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _facts(prepared: Prepared) -> str:
    """As JSON; what is of exits stands there where there are any."""
    facts = asdict(prepared)
    if prepared.network.exits is None:
        del facts["network"]["exits"]
    return json.dumps(facts)


def _no_factory_rows(scenario: Scenario, rows: int) -> str:
    data = scenario.data
    if isinstance(data.partition, Given):
        why = f"data.partition.file {data.partition.file} gives every row to a client, which leaves the"
        return f"{why} factory model none to train on: leave rows out, or set model.factory.epochs to 0"
    why = f"data.factory_fraction is {data.factory_fraction:g}, which of {rows:,} rows leaves the"
    return f"{why} factory model none to train on: raise it, or set model.factory.epochs to 0"


def _factory(scenario: Scenario, model: nn.Module, folder: Path) -> Prepared:
    """Train the factory model on the factory split and save it. RunError: it diverged."""
    shard, choice = Shard.open(folder / "factory-shard", 0), scenario.model.factory
    model.to(opened(scenario.engine.device))
    tolerance = _tolerances(scenario, shard)
    task = trained_by(task_named(shard.task, scale=shard.target_std, tolerance=tolerance), choice.loss)
    transform = transform_named(choice.transform, scenario.programs, key="model.factory.transform")
    seed = partial(derive_seed, scenario.world, "factory")
    train_factory(model, shard, choice, task, transform, seed=seed)
    exits = scenario.training.exits
    shipped = (
        model if exits is None else exits_trained(model, shard, exits, choice, task, transform, seed=seed)
    )
    state = {name: tensor.contiguous() for name, tensor in on_cpu(shipped.state_dict()).items()}
    save_file(state, folder / "factory.safetensors")
    return Prepared(
        folder=str(folder),
        network=NetworkSource.of(scenario.model, scenario.programs, exits),
        num_classes=shard.num_classes,
        input_shape=shard.shape,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs_training=count_macs(model, shard.shape).training,
        task=shard.task,
        target_std=shard.target_std,
        tolerance=tolerance,
    )


def _tolerances(scenario: Scenario, shard: Shard) -> tuple[float, ...]:
    """Of each number, in its unit; none where the scenario declares none."""
    declared = scenario.data.tolerance
    if declared is None:
        return ()
    return declared if isinstance(declared, tuple) else (declared,) * shard.num_classes
