"""The exits of a factory model, trained on the factory's rows when the network itself has been: it does not move."""

from collections.abc import Callable

from torch import nn

from fedge.data.shard import Shard
from fedge.data.transform import Transform
from fedge.errors import RunError
from fedge.network.factory import annealed
from fedge.progress import EPOCH, tell
from fedge.scenario.methods.exits import Exits
from fedge.scenario.model import Factory
from fedge.training.exits.network import ExitNetwork, with_exits
from fedge.training.exits.task import ExitTask
from fedge.training.loop import train
from fedge.training.memory_format import fast_order
from fedge.training.outputs import finite_weights
from fedge.training.task import Task
from fedge.training.torch_device import device_of, drawing_from


def exits_trained(
    trunk: nn.Module,
    shard: Shard,
    exits: Exits,
    choice: Factory,
    task: Task,
    transform: Transform | None,
    *,
    seed: Callable[..., int],
) -> ExitNetwork:
    """`trunk` with the exits of `[training.exits]`, trained from labels as `[model.factory]` (`choice`) says, for
    `factory_epochs`; the trunk is as it was, bit for bit.

    seed: of a purpose in the factory. RunError where an exit diverges.
    """
    device = device_of(trunk)
    thawed = [parameter for parameter in trunk.parameters() if parameter.requires_grad]
    model = with_exits(
        trunk, shard.shape, shard.num_classes, where=exits.where, channels=exits.channels, seed=seed("exits")
    ).to(device)
    model.freeze_trunk()
    model.whole = False
    per_epoch = -(-shard.count("train") // choice.batch_size)
    optimizer = annealed(model.exits, choice, steps=exits.factory_epochs * per_epoch)
    order = fast_order(model, choice.batch_size, shard.shape)
    for epoch in range(exits.factory_epochs):
        tell("factory", epoch * EPOCH, exits.factory_epochs * EPOCH)
        batches = shard.batches(
            "train",
            choice.batch_size,
            seed=seed("exits shuffle", epoch),
            transform=transform,
            order=order,
            device=device,
        )
        with drawing_from(seed("exits torch", epoch), device):
            train(model, batches, optimizer=optimizer, task=ExitTask(task, whole=False))
        if not finite_weights(model):
            raise RunError(
                f"the factory model's exits diverged in epoch {epoch + 1} of {exits.factory_epochs} with "
                f"model.factory.learning_rate {choice.learning_rate:g}: lower model.factory.learning_rate"
            )
    model.whole = True
    for parameter in thawed:
        parameter.requires_grad_(True)
    return model
