"""Loss and transform of a program's own, held to their word."""

import math

from fedge.data.transform import Transform
from fedge.errors import UserError
from fedge.protocol.report import OWN
from fedge.training.task import Labels, Numbers, OwnLoss, Task, WithOwnLoss


def with_own(task: Task, loss: OwnLoss | None) -> Task:
    """`task`, trained by a program's own loss where it brings one; UserError where that is no function."""
    if loss is None:
        return task
    if not callable(loss):
        raise UserError(
            f"device.train: loss is a {type(loss).__name__}; pass a function of (out_BK, y_B) that gives each sample's "
            'loss [B]: loss=torch.nn.CrossEntropyLoss(reduction="none")'
        )
    return WithOwnLoss(task, loss)


def require_transform(transform: Transform | None) -> None:
    """UserError where it is no function."""
    if transform is not None and not callable(transform):
        raise UserError(
            f"device.train: transform is a {type(transform).__name__}; pass a function of (x_BCHW, generator) that "
            "gives a batch like x_BCHW"
        )


def require_not_negative(loss: float) -> None:
    """UserError for a mean loss that no report could hold."""
    if math.isfinite(loss) and loss < 0:
        raise UserError(
            f"device.train: the loss is {loss:g}, and a report holds 0 to 1e6: give one that is never negative, such "
            "as the cross-entropy"
        )


def loss_word(task: Task) -> str:
    """What a report calls the loss of a task."""
    if isinstance(task, WithOwnLoss):
        return OWN
    if isinstance(task, Numbers):
        return "squared" if task.huber is None else "huber"
    return "binary" if isinstance(task, Labels) else "cross_entropy"
