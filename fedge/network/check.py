"""A network of the user's own, looked at once before its factory model is trained: one line for what is wrong with it.

It must build the same each time, hold plain float32 tensors, turn a batch into outputs [B, K] in both modes, and let
itself be trained, counted and, where the scenario prunes, cut and built again from the record of the cut.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedge.errors import UserError, is_out_of_memory
from fedge.network.sandbox import bounded_time, sandboxed
from fedge.network.source import NetworkSource, Shape
from fedge.scenario.schema import Scenario
from fedge.scenario.training import Pruning
from fedge.training.macs import count_macs
from fedge.training.pruning.one_shot import prune
from fedge.training.task import Classes, Task

TRIED_LEVEL = 0.1  # of a trial cut


def check_network(
    source: NetworkSource,
    scenario: Scenario,
    num_classes: int,
    shape: Shape,
    task: Task = Classes(),  # noqa: B008 - it has no state
) -> None:
    """Raise UserError for the first thing that keeps the network from being trained and shipped.

    num_classes: its outputs, one for each class, label or number that `task` asks for.
    fedge's own networks pass unlooked at. Nothing of the caller's is changed, the network's prints go nowhere.
    """
    if not source.is_own:
        return

    def build(seed: int = 0) -> nn.Module:
        return source.build(num_classes, shape, seed=seed)

    with bounded_time(), sandboxed(0):
        model = build()
        _check_tensors(model, source.name)
        _check_builds_alike(model, build(), source.name)
        with _in_words(source, f"cannot run on a batch of [B, {', '.join(map(str, shape))}]"):
            _check_outputs(model, num_classes, shape, task, source.name)
            _check_rebuilt(model, build(1), shape, source.name)
        with _prefixed(source.name):
            count_macs(copy.deepcopy(model), shape)
            for pruning in _cuts(scenario):
                _check_cut(model, build, pruning, shape)


def _check_tensors(model: nn.Module, who: str) -> None:
    """Its parameters and buffers can be stored, sent, and trained."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if torch.nn.parameter.is_lazy(tensor):
            raise UserError(
                f"{who}: {name} has no shape before it sees data: give its layer its sizes, no lazy layers"
            )
        if tensor.device.type != "cpu":
            raise UserError(
                f"{who}: {name} is on {tensor.device}: build the network on the CPU, fedge moves it"
            )
        if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{who}: {name} is {dtype}; fedge trains in float32: leave .double() and .half() out"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{who}: {name} holds numbers that are nan or infinite before it is trained")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"{who} has no parameter that can be trained")
    state: dict[str, object] = dict(model.state_dict())
    if odd := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise UserError(f"{who}: {odd[0]} in its state is no tensor, and only tensors are stored")
    places: dict[int, str] = {}
    for name, tensor in model.state_dict().items():
        if tensor.numel() and (first := places.setdefault(tensor.data_ptr(), name)) != name:
            raise UserError(f"{who}: {first} and {name} are one tensor, and each is stored apart: untie them")


def _check_builds_alike(model: nn.Module, again: nn.Module, who: str) -> None:
    """Every device builds it for itself: a second network is of the same shapes and values, and another object."""
    first, second = model.state_dict(), again.state_dict()
    shapes, others = ({key: list(value.shape) for key, value in state.items()} for state in (first, second))
    if odd := sorted(key for key in shapes | others if shapes.get(key) != others.get(key)):
        raise UserError(
            f"{who} builds another network the second time ({odd[0]} is {shapes.get(odd[0], 'absent')}, then "
            f"{others.get(odd[0], 'absent')}): the same arguments must give the same shapes"
        )
    for key, value in first.items():
        if value.numel() and value.data_ptr() == second[key].data_ptr():
            raise UserError(
                f"{who} gives the same network twice ({key} is shared): build a new one in each call"
            )
        if not torch.equal(value, second[key]):
            raise UserError(
                f"{who}: {key} differs each time it is built: draw first weights from torch's, NumPy's or Python's "
                "global generator, which fedge seeds, and from no other source"
            )


def _check_outputs(model: nn.Module, num_classes: int, shape: Shape, task: Task, who: str) -> None:
    """Outputs [B, K] for batches of two and three samples, in evaluation and in training mode, with a gradient."""
    what = "numbers" if task.name == "numbers" else "logits"
    for training, count in ((False, 2), (True, 3)):
        tried = copy.deepcopy(model).train(training)
        out = tried(_noise(count, shape))
        mode = "training" if training else "evaluation"
        if not isinstance(out, Tensor):
            raise UserError(
                f"{who} gives a {type(out).__name__} in {mode} mode; one tensor of {what} [B, {num_classes}] is wanted"
            )
        if list(out.shape) != [count, num_classes]:
            raise UserError(
                f"{who} gives {list(out.shape)} for {count} samples of {num_classes} {task.name}; {what} "
                f"[B, {num_classes}] are wanted: end it with num_classes outputs"
            )
        if out.dtype != torch.float32:
            raise UserError(
                f"{who} gives {str(out.dtype).removeprefix('torch.')} {what}; float32 ones are wanted"
            )
        if not bool(torch.isfinite(out).all()):
            raise UserError(
                f"{who} gives {what} that are nan or infinite in {mode} mode, with its first weights"
            )
        if not training:
            continue
        if not out.requires_grad:
            raise UserError(
                f"{who} gives {what} without a gradient in training mode: no torch.no_grad or detach there"
            )
        task.mean_loss(out, task.blank(out)).backward()


def _check_rebuilt(model: nn.Module, again: nn.Module, shape: Shape, who: str) -> None:
    """Its state is all that makes it answer as it does: a device holds nothing else of the factory model."""
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        x_BCHW = _noise(2, shape)
        answers = [copy.deepcopy(tried).eval()(x_BCHW) for tried in (model, again, model)]
    if not torch.equal(answers[0], answers[2]):
        raise UserError(
            f"{who} answers the same batch differently in evaluation mode: nothing may be random there"
        )
    if not torch.equal(answers[0], answers[1]):
        raise UserError(
            f"{who} holds something random that its state_dict does not (a buffer with persistent=False, a plain "
            "attribute): register it as a buffer"
        )


def _check_cut(model: nn.Module, build: Callable[[], nn.Module], pruning: Pruning, shape: Shape) -> None:
    level = min(TRIED_LEVEL, pruning.level) if isinstance(pruning.level, float) else TRIED_LEVEL
    cut = copy.deepcopy(model)
    topology = prune(cut, level, example_input=torch.zeros(1, *shape), **pruning.cut)
    topology.rebuild(build).load_state_dict(cut.state_dict())


def _cuts(scenario: Scenario) -> list[Pruning]:
    """How the device classes prune, each way once; none where the schedule prunes nothing."""
    if not any(scenario.schedule.phase(round) == "retrain" for round in range(1, scenario.rounds + 1)):
        return []
    ways = [scenario.training_of(device_class).pruning for device_class in scenario.fleet]
    return [way for index, way in enumerate(ways) if way.level != 0 and way not in ways[:index]]


def _noise(count: int, shape: Shape) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))


@contextmanager
def _in_words(source: NetworkSource, what: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        wrap = (
            ""
            if source.program
            else "; a net.py of your own can wrap it, and gets in_channels and image_size"
        )
        raise UserError(f"{source.name} {what}: {source.in_words(error)}{wrap}") from error


@contextmanager
def _prefixed(who: str) -> Iterator[None]:
    """Name the network in what counting and cutting have against it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{who}: {error}") from error
