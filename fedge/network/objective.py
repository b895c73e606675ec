"""What a scenario asks of a network: the data's task, the loss that it is trained by, the transform of its batches."""

from collections.abc import Sequence

from fedge.catalog.facts import Task as TaskName
from fedge.catalog.names import is_reference
from fedge.data.transform import TRANSFORMS, Transform
from fedge.references import Programs, resolve_callable
from fedge.scenario.methods.exits import Exits
from fedge.scenario.training import Loss
from fedge.training.exits.task import ExitTask
from fedge.training.task import Classes, Labels, Numbers, Task, with_loss


def task_named(name: TaskName, *, scale: Sequence[float] = (), tolerance: Sequence[float] = ()) -> Task:
    """The data's task with its own loss. scale, tolerance: of numbers, as in `Numbers`."""
    if name == "labels":
        return Labels()
    return Numbers(tuple(scale), tuple(tolerance)) if name == "numbers" else Classes()


def trained_by(task: Task, loss: Loss | None) -> Task:
    """`task` with the settings' loss; UserError where that is not for it."""
    return task if loss is None else with_loss(task, **loss.model_dump())


def taught_by(task: Task, exits: Exits, among: Sequence[int] | None = None) -> ExitTask:
    """`task`, which asks for classes, of every exit, as the settings have them taught; among: the classes that are
    answers, None: all."""
    return ExitTask(
        task,
        "labels" if exits.teach == "none" else exits.teach,
        temperature=exits.temperature,
        whole=exits.needs_teacher,
        among=None if among is None else tuple(among),
    )


def transform_named(name: str, programs: Programs, *, key: str) -> Transform | None:
    """The settings' transform; None: batches are as the data are. UserError where a reference does not resolve."""
    if not is_reference(name):
        return TRANSFORMS[name]
    own: Transform = resolve_callable(name, programs, key=key)
    return own
