"""The exits of a factory model, trained on the factory's rows when the network itself has been: it does not move."""

from collections.abc import Callable

from torch import nn

from fedge.data.shard import Shard
from fedge.data.transform import Transform
from fedge.errors import RunError
from fedge.network.factory import factory_epochs
from fedge.scenario.methods.exits import Exits
from fedge.scenario.model import Factory
from fedge.training.exits.network import ExitNetwork, with_exits
from fedge.training.exits.task import ExitTask
from fedge.training.outputs import finite_weights
from fedge.training.task import Task
from fedge.training.torch_device import device_of


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
    early, count = ExitTask(task, whole=False), exits.factory_epochs
    for epoch in factory_epochs(
        model, model.exits, shard, choice, early, transform, count=count, seed=seed, purpose="exits "
    ):
        if not finite_weights(model):
            raise RunError(
                f"the factory model's exits diverged in epoch {epoch + 1} of {exits.factory_epochs} with "
                f"model.factory.learning_rate {choice.learning_rate:g}: lower model.factory.learning_rate"
            )
    model.whole = True
    for parameter in thawed:
        parameter.requires_grad_(True)
    return model
