"""What is shipped beside the factory model, where a scenario's devices need it: made once, of factory data alone.

    label-prior.safetensors            the classes' shares in the factory's training samples,   training.prior,
                                       and the temperature of the network's answers to them     exits.prior
    features-generated.safetensors     means and one covariance of the trunk's features          training.source
    features-replay-K.safetensors      K features of each class

They lie in the prepared folder beside the factory model and depend on nothing but what that depends on, and K.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedge.data.shard import Shard
from fedge.data.unlabelled import pictures
from fedge.errors import RunError
from fedge.scenario.training import Training
from fedge.seeding import derive_seed
from fedge.training.features import Gaussians, Shipped, Stored, Trunk
from fedge.training.label_prior.look import logits
from fedge.training.label_prior.temperature import fitted_temperature
from fedge.training.task import Classes

PRIOR = "label-prior.safetensors"
_BATCH = 256
_JUDGED = 5000  # factory samples that the temperature is of, at most


class FactoryPrior(NamedTuple):
    """`share_C` of the classes in what the factory model was trained on, float64; and its `temperature`."""

    share_C: Tensor
    temperature: float


def write_shipped(
    folder: Path, trainings: Iterable[Training], factory_model: Callable[[], nn.Module], world: int
) -> None:
    """Make in the prepared `folder` what these settings need and what is not there yet.

    world: the seed of what is chosen by chance. Call it while nobody else prepares the folder. UserError where the
    network does not end in a head, or where the factory has no samples of which there could be features.
    """
    wanted = {name: training for training in trainings for name in _names(training)}
    missing = [name for name in wanted if _read(folder / name) is None]
    if not missing:
        return
    shard = Shard.open(folder / "factory-shard", 0)
    y_N = torch.from_numpy(shard.labels("train")).long()
    features_NF: Tensor | None = None
    for name in missing:
        if name == PRIOR:
            _save(_prior(factory_model(), shard, y_N, world), folder / name)
            continue
        if features_NF is None:
            trunk = Trunk.of(factory_model(), shard.shape)
            features_NF = trunk.features_of(pictures(shard, ["train"], _BATCH))
        _save(_features(wanted[name], features_NF, y_N, shard.num_classes, world), folder / name)


def factory_prior(folder: Path) -> FactoryPrior:
    """Of the factory model in the prepared folder; equal shares where it was trained on nothing that is known."""
    held = _held(folder / PRIOR)
    return FactoryPrior(held["prior"], float(held["temperature"]))


def shipped_features(folder: Path, training: Training) -> Shipped:
    """Those that `training.source`, "generated" or "replay", names; of the factory model's trunk, uncut."""
    tensors = _held(folder / _features_name(training))
    return Gaussians.of(tensors) if training.source == "generated" else Stored.of(tensors)


def shipped_bytes(training: Training, classes: int, features: int) -> int:
    """What a device of these settings is sent beside its network, at most, in 32-bit floats; 0 where it needs nothing.

    classes: C of the data. features: F, what arrives at the head. A prior takes C numbers, a generator C F + F^2,
    replayed features k C F where the factory has k of each class.
    """
    numbers = classes if training.finds_prior else 0
    if training.source == "generated":
        numbers += (classes + features) * features
    elif training.source == "replay":
        numbers += training.adaptation.replayed * classes * features
    return 4 * numbers


def _draws(training: Training) -> bool:
    return training.source in ("generated", "replay")


def _names(training: Training) -> list[str]:
    prior = [PRIOR] if training.finds_prior else []
    return [*prior, *([_features_name(training)] if _draws(training) else [])]


def _features_name(training: Training) -> str:
    k = f"-{training.adaptation.replayed}" if training.source == "replay" else ""
    return f"features-{training.source}{k}.safetensors"


def _features(
    training: Training, features_NF: Tensor, y_N: Tensor, classes: int, world: int
) -> dict[str, Tensor]:
    if training.source == "generated":
        return Gaussians.fit(features_NF, y_N, classes).tensors()
    seed = derive_seed(world, "factory", "replay")
    return Stored.chosen(features_NF, y_N, classes, training.adaptation.replayed, seed).tensors()


def _prior(model: nn.Module, shard: Shard, y_N: Tensor, world: int) -> dict[str, Tensor]:
    classes, seed = shard.num_classes, derive_seed(world, "factory", "temperature")
    share_C = torch.full((classes,), 1 / classes, dtype=torch.float64)
    if len(y_N):
        share_C = torch.bincount(y_N, minlength=classes).double() / len(y_N)
    judged = islice(shard.batches("train", _BATCH, seed=seed), _JUDGED // _BATCH)
    looked = [(logits(model, [x_BCHW], Classes(), classes), y_B.long()) for x_BCHW, y_B in judged]
    temperature = 1.0
    if looked:
        temperature = fitted_temperature(*(torch.cat(part) for part in zip(*looked, strict=True)))
    return {"prior": share_C, "temperature": torch.tensor(temperature, dtype=torch.float64)}


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    partial.replace(path)


def _read(path: Path) -> dict[str, Tensor] | None:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError):
        return None


def _held(path: Path) -> dict[str, Tensor]:
    tensors = _read(path)
    if tensors is None:
        raise RunError(
            f"{path}: what is shipped beside the factory model is not there, or damaged: prepare the data again, with "
            "training.prior and training.source set in the scenario"
        )
    return tensors
