"""Before a run: load the data, divide it over the clients, train the factory model. Cached by content.

This is the world, not the server: it stands for what happened before the first round, when people took their own
pictures and the factory shipped its firmware. It runs where the devices run (under Ray, in a Ray task), and hands
back only what `Prepared` holds.
"""

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fedge.data.datasets import DataSet, load_dataset
from fedge.data.partition import divide
from fedge.data.shard import Shard, write_shards
from fedge.errors import RunError, UserError
from fedge.models import build
from fedge.paths import cache_folder, data_root
from fedge.scenario.file import parse_scenario
from fedge.scenario.schema import Scenario
from fedge.seeding import derive_seed
from fedge.training.heap import kept_heap
from fedge.training.loop import train
from fedge.training.macs import count_macs
from fedge.training.memory_format import fast_order

FORMAT = 2  # raised when what lies in a prepared folder changes


@dataclass(frozen=True)
class Prepared:
    """Where the clients' shards and the factory model lie, and the size of that model."""

    folder: str
    model: str
    num_classes: int
    input_shape: tuple[int, int, int]  # C, H, W
    parameters: int
    macs_training: int  # of the dense factory model, per instance, forward and backward

    @classmethod
    def open(cls, folder: Path) -> "Prepared":
        """Read a finished folder; it may have been moved since it was written."""
        facts = json.loads((folder / "prepared.json").read_text())
        return cls(**facts | {"folder": str(folder), "input_shape": tuple(facts["input_shape"])})

    def build_model(self) -> nn.Module:
        """The factory model's constructor: its shape, not its weights."""
        channels, *image_size = self.input_shape
        return build(
            self.model, num_classes=self.num_classes, in_channels=channels, image_size=tuple(image_size)
        )

    def factory_model(self) -> nn.Module:
        """The factory model as it is shipped to every device (M_D)."""
        model = self.build_model()
        model.load_state_dict(load_file(Path(self.folder) / "factory.safetensors"))
        return model


def prepare_json(scenario_json: str) -> dict[str, object]:
    """`prepare`, for a caller in another process."""
    return asdict(prepare(parse_scenario(json.loads(scenario_json))))


def prepare(scenario: Scenario) -> Prepared:
    """Prepare `scenario`, or find it prepared. Safe to call from many processes at once.

    The factory model is a function of the scenario: torch is set to `engine.threads`, wherever this runs.
    Raises UserError where the data are not there or cannot be divided as asked.
    """
    torch.set_num_threads(scenario.engine.threads)
    dataset = load_dataset(scenario.data.dataset, data_root(scenario.data.root))
    base = cache_folder() / "prepared"
    folder = base / f"{dataset.name}-{scenario.model.name}-{_content_hash(scenario, dataset)}"
    with _locked(base, folder.name):
        if not (folder / "prepared.json").is_file():
            _write(scenario, dataset, folder)
    return Prepared.open(folder)


def _content_hash(scenario: Scenario, dataset: DataSet) -> str:
    """Changes with anything that the prepared folder depends on: the data's bytes, the sections read, the versions."""
    data = scenario.data.model_dump(exclude={"root"})
    choices = [scenario.seed, scenario.clients, scenario.engine.threads, data, scenario.model.model_dump()]
    key = json.dumps([FORMAT, torch.__version__, *choices], sort_keys=True)
    digest = hashlib.blake2b(key.encode(), digest_size=8)
    digest.update(memoryview(dataset.x).cast("B"))
    digest.update(memoryview(dataset.y).cast("B"))
    return digest.hexdigest()


def _write(scenario: Scenario, dataset: DataSet, folder: Path) -> None:
    """Fill a folder beside `folder`, then move it there whole."""
    division = divide(dataset, scenario.data, clients=scenario.clients, seed=scenario.seed)
    for left in folder.parent.glob(f".{folder.name}-*"):  # by a preparation that was killed
        shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        write_shards(dataset, division.clients, partial / "shards")
        write_shards(dataset, [division.factory], partial / "factory-shard")
        with kept_heap():
            prepared = _factory(scenario, partial)
        (partial / "prepared.json").write_text(json.dumps(asdict(prepared)))
        shutil.rmtree(folder, ignore_errors=True)  # left by a crash, or by an older format
        partial.rename(folder)
    except OSError as error:
        raise RunError(f"{folder}: the prepared data cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _factory(scenario: Scenario, folder: Path) -> Prepared:
    """Train the factory model on the factory split and save it."""
    shard = Shard.open(folder / "factory-shard", 0)
    choice = scenario.model.factory
    model = build(
        scenario.model.name,
        num_classes=shard.num_classes,
        in_channels=shard.shape[0],
        image_size=shard.shape[1:],
        seed=derive_seed(scenario.seed, "factory", "weights"),
    )
    steps = choice.epochs * -(-shard.count("train") // choice.batch_size)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=choice.learning_rate,
        momentum=choice.momentum,
        weight_decay=choice.weight_decay,
    )
    if steps:
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        optimizer.register_step_post_hook(lambda *_: decay.step())
    order = fast_order(model, choice.batch_size, shard.shape)
    for epoch in range(choice.epochs):
        seed = derive_seed(scenario.seed, "factory", "shuffle", epoch)
        augment = None if choice.augment == "none" else choice.augment
        batches = shard.batches("train", choice.batch_size, seed=seed, augment=augment, order=order)
        train(model, batches, optimizer=optimizer)
    save_file(model.state_dict(), folder / "factory.safetensors")
    return Prepared(
        folder=str(folder),
        model=scenario.model.name,
        num_classes=shard.num_classes,
        input_shape=shard.shape,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs_training=count_macs(model, shard.shape).training,
    )


@contextmanager
def _locked(base: Path, name: str) -> Iterator[None]:
    """One preparation of `name` at a time, over all processes of this machine."""
    try:
        base.mkdir(parents=True, exist_ok=True)
        lock = open(base / f".{name}.lock", "w")  # noqa: SIM115 - closed below
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise UserError(
            f"{base}: the cache cannot be written: {error.strerror}; set FEDGE_CACHE to a folder that can"
        ) from None
    with lock:
        yield
