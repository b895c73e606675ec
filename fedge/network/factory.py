"""The factory model: fresh or from a file, and its training on the factory's rows."""

import math
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import nn

from fedge.catalog.facts import Task as TaskName
from fedge.data.shard import Shard
from fedge.data.transform import Transform
from fedge.errors import RunError
from fedge.network import NetworkSource
from fedge.network.check import check_network
from fedge.network.objective import task_named
from fedge.network.weights import load_weights
from fedge.progress import EPOCH, advance, tell
from fedge.scenario.model import Factory
from fedge.scenario.schema import Scenario
from fedge.seeding import derive_seed
from fedge.training.batches import Batches
from fedge.training.loop import evaluate, train
from fedge.training.memory_format import fast_order
from fedge.training.task import Task
from fedge.training.torch_device import device_of, drawing_from

_WATCHED_BATCHES = 4  # that the factory model is judged by after an epoch


def initial_model(
    scenario: Scenario, num_classes: int, shape: tuple[int, ...], task: TaskName = "classes"
) -> nn.Module:
    """The factory model before its training: fresh weights of the world's seed, and over them those of a file.

    num_classes: classes, labels or numbers of the data. shape: [C, H, W] of a sample. UserError where the network, or
    the file, will not do.
    """
    channels, height, width = shape
    network = NetworkSource.of(scenario.model, scenario.programs)
    check_network(network, scenario, num_classes, (channels, height, width), task_named(task))
    seed = derive_seed(scenario.world, "factory", "weights")
    model = network.build(num_classes, (channels, height, width), seed=seed)
    if scenario.model.weights is not None:
        load_weights(model, scenario.model.weights, scenario.model.reset, who=network.name)
    return model


def train_factory(
    model: nn.Module,
    shard: Shard,
    choice: Factory,
    task: Task,
    transform: Transform | None,
    *,
    seed: Callable[..., int],
) -> None:
    """Train `model` where it is, as `[model.factory]` says, on the training rows of the factory's shard.

    seed: of a purpose in the factory. RunError where it diverges.
    """
    for epoch in factory_epochs(model, model, shard, choice, task, transform, count=choice.epochs, seed=seed):
        accuracy = _finite_accuracy(model, shard, choice, epoch, task)
        tell("factory", (epoch + 1) * EPOCH, choice.epochs * EPOCH, accuracy)


def factory_epochs(
    model: nn.Module,
    part: nn.Module,
    shard: Shard,
    choice: Factory,
    task: Task,
    transform: Transform | None,
    *,
    count: int,
    seed: Callable[..., int],
    purpose: str = "",
) -> Iterator[int]:
    """Train `part` of `model` by the factory's optimizer, its rate falling to 0 over `count` epochs; yields the number
    of each, from 0, when it is done. purpose: before the seeds' own."""
    device = device_of(model)
    per_epoch = -(-shard.count("train") // choice.batch_size)
    optimizer = _annealed(part, choice, steps=count * per_epoch)
    order = fast_order(model, choice.batch_size, shard.shape)
    tell("factory", 0, count * EPOCH)
    for epoch in range(count):
        batches = shard.batches(
            "train",
            choice.batch_size,
            seed=seed(f"{purpose}shuffle", epoch),
            transform=transform,
            order=order,
            device=device,
        )
        told = _told(batches, epoch * EPOCH, per_epoch, count * EPOCH)
        with drawing_from(seed(f"{purpose}torch", epoch), device):
            train(model, told, optimizer=optimizer, task=task)
        yield epoch


def _annealed(part: nn.Module, choice: Factory, *, steps: int) -> torch.optim.Optimizer:
    """The factory's optimizer of the parameters, whose rate falls to 0 in so many steps."""
    optimizer = torch.optim.SGD(
        part.parameters(),
        lr=choice.learning_rate,
        momentum=choice.momentum,
        weight_decay=choice.weight_decay,
    )
    if steps:
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        optimizer.register_step_post_hook(lambda *_: decay.step())
    return optimizer


def _told(batches: Batches, before: int, per_epoch: int, of: int) -> Batches:
    """One epoch's batches, each of which is told of; `before` and `of` in thousandths of an epoch."""
    for step, batch in enumerate(batches, start=1):
        yield batch
        advance(before + step * EPOCH // per_epoch, of)


def _finite_accuracy(model: nn.Module, shard: Shard, choice: Factory, epoch: int, task: Task) -> float:
    """The share of right answers on a few training batches, for whoever watches.

    RunError: a factory model with numbers that are none must not reach a device, nor the cache.
    """
    finite = all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    if finite:
        few = islice(shard.batches("train", choice.batch_size), _WATCHED_BATCHES)
        judged = evaluate(model, few, task=task)
        finite = math.isfinite(judged.loss)
    if not finite:
        raise RunError(
            f"the factory model diverged (nan or infinite after epoch {epoch + 1} of {choice.epochs}) with "
            f"model.factory.learning_rate {choice.learning_rate:g}: lower model.factory.learning_rate"
        )
    return judged.accuracy
