"""What training takes of a device's memory, and what the plan becomes where that is too much."""

import copy
import inspect
from collections.abc import Hashable
from typing import Any

import torch
from torch import nn

from fedge.catalog.devices import DeviceProfile
from fedge.device.memory.features import peak_head_memory
from fedge.device.memory.fitting import Fit, Policy, fit
from fedge.device.memory.peak import Optimizer, peak_training_memory
from fedge.scenario.schema import Limits
from fedge.scenario.training import ErrorMaps, Training
from fedge.training.features import Trunk
from fedge.training.pruning.one_shot import prune
from fedge.training.task import Classes, Task
from fedge.training.update.what import trained

_OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "momentum", "adam")  # by the numbers that they keep per weight

_PEAKS: dict[Hashable, int] = {}
"""What this process has computed already: unpruned networks of a fleet all have the same shape."""


def peak_bytes(
    model: nn.Module,
    training: Training,
    batch_size: int,
    input_shape: tuple[int, int, int],
    copies: int | None = None,
    *,
    task: Task = Classes(),  # noqa: B008 - it has no state
    samples: int = 0,
) -> int:
    """Peak memory of training `model` as `training` says, on batches of `batch_size`; nothing is run.

    copies: numbers per weight that the optimizer keeps; None: those of the settings' own. task: whose loss it is.
    samples: training samples at hand, of which features may be kept.
    """
    if copies is None:
        copies = training.optimizer.copies
    layers = tuple((name, tuple(tensor.shape)) for name, tensor in model.state_dict().items())
    choice = training.error_maps
    what = choice.kind, choice.keep, choice.target, choice.threshold
    source = training.source and (training.source, training.adaptation.replayed, samples)
    key = type(model), layers, trained(model), what, batch_size, input_shape, copies, task, source
    if key not in _PEAKS:
        known = min(copies, len(_OPTIMIZERS) - 1)
        how: dict[str, Any] = {
            "batch_size": batch_size,
            "input_shape": input_shape,
            "optimizer": _OPTIMIZERS[known],
            "task": task,
        }
        if source is None:
            pruning = _pruning(choice) if choice.prunes else None
            peak = peak_training_memory(lambda: model, error_maps=pruning, **how)
        else:
            peak = peak_head_memory(Trunk.of(model, input_shape), training, samples=samples, **how)
        _PEAKS[key] = peak + (copies - known) * sum(
            parameter.nbytes for parameter in model.parameters() if parameter.requires_grad
        )
    return _PEAKS[key]


def _pruning(choice: ErrorMaps) -> float | dict[str, Any]:
    """What of it decides how much memory a step takes."""
    if choice.kind == "channel":
        return choice.keep
    if choice.target:
        return {"kind": choice.kind, "target": choice.target}
    return {"kind": choice.kind, "keep": choice.keep, "threshold": choice.threshold}


def state_copies(optimizer: torch.optim.Optimizer) -> int:
    """How many numbers per weight an optimizer of this kind keeps: 0 for plain SGD, 2 for Adam.

    Found by a step of its like on a weight matrix of zeros; 2 where its like cannot be made.
    """
    kind, group = type(optimizer), optimizer.param_groups[0]
    options = {name: group[name] for name in inspect.signature(kind).parameters if name in group}
    options.pop("params", None)
    probe = nn.Parameter(torch.zeros(2, 2))
    probe.grad = torch.zeros_like(probe)
    try:
        like = kind([probe], **options)
        like.step()
    except Exception:  # somebody's own optimizer, with a constructor or a step of its own
        return _OPTIMIZERS.index("adam")
    kept = (value for value in like.state[probe].values() if isinstance(value, torch.Tensor))
    return sum(value.numel() >= probe.numel() for value in kept)


def fit_to_memory(
    model: nn.Module,
    training: Training,
    limits: Limits,
    profile: DeviceProfile,
    *,
    input_shape: tuple[int, int, int],
    samples: int,
    copies: int | None = None,
    known_bytes: int | None = None,
    may_prune: bool = True,
    task: Task = Classes(),  # noqa: B008 - it has no state
    who: str,
) -> Fit:
    """Decide what a device does with a plan, before it runs it (see fitting.py for the policies).

    The level of the returned Fit is a further cut of `model` as it stands; 0: none. `samples`: training instances at
    hand, which bound the batch. `copies`: as in `peak_bytes`. `known_bytes`: the need of the plan as it is, where an
    earlier round has told. `may_prune` false: only the batch can shrink. `task`: whose loss it is. A cut is tried on a
    copy, ranked by L1: its shape is what matters.
    """

    def need(batch_size: int, level: float) -> int:
        if level == 0 and batch_size == asked and known_bytes:
            return known_bytes
        pruned = copy.deepcopy(model)
        if level:
            example_input = torch.zeros(1, *input_shape)
            prune(pruned, level, example_input=example_input, **training.pruning.cut)
        return int(
            limits.overhead
            * peak_bytes(pruned, training, batch_size, input_shape, copies, task=task, samples=samples)
        )

    asked = min(training.batch_size, samples)
    policy: Policy = "shrink" if limits.memory == "shrink" else "refuse"
    return fit(
        need,
        profile.memory_bytes,
        who=who,
        batch_size=asked,
        level=0.0,
        policy=policy,
        may_prune=may_prune,
    )
