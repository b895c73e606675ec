"""What training takes of a device's memory, and what the plan becomes where that is too much."""

import copy
from collections.abc import Hashable

import torch
from torch import nn

from fedge.catalog.devices import DeviceProfile
from fedge.device.memory.fitting import Fit, fit
from fedge.device.memory.peak import peak_training_memory
from fedge.scenario.schema import Limits, Training
from fedge.training.pruning.one_shot import prune

_PEAKS: dict[Hashable, int] = {}
"""What this process has computed already: unpruned networks of a fleet all have the same shape."""


def peak_bytes(
    model: nn.Module, training: Training, batch_size: int, input_shape: tuple[int, int, int]
) -> int:
    """Peak memory of training `model` as `training` says, on batches of `batch_size`; nothing is run."""
    layers = tuple((name, tuple(tensor.shape)) for name, tensor in model.state_dict().items())
    key = type(model), layers, training, batch_size, input_shape
    if key not in _PEAKS:
        keep = training.error_maps.keep
        _PEAKS[key] = peak_training_memory(
            lambda: model,
            batch_size=batch_size,
            input_shape=input_shape,
            optimizer="momentum" if training.momentum else "sgd",
            error_maps=keep if keep < 1 else None,
        )
    return _PEAKS[key]


def fit_to_memory(
    model: nn.Module,
    training: Training,
    limits: Limits,
    profile: DeviceProfile,
    *,
    input_shape: tuple[int, int, int],
    samples: int,
    known_bytes: int | None = None,
    who: str,
) -> Fit:
    """Decide what a device does with a plan, before it runs it (see fitting.py for the policies).

    The level of the returned Fit is a further cut of `model` as it stands; 0: none. `samples`: training instances at
    hand, which bound the batch. `known_bytes`: the need of the plan as it is, where an earlier round has told. A cut
    is tried on a copy, ranked by L1: its shape is what matters.
    """

    def need(batch_size: int, level: float) -> int:
        if level == 0 and batch_size == asked and known_bytes:
            return known_bytes
        pruned = copy.deepcopy(model)
        if level:
            example_input = torch.zeros(1, *input_shape)
            prune(pruned, level, example_input=example_input, **training.pruning.cut)
        return int(limits.overhead * peak_bytes(pruned, training, batch_size, input_shape))

    asked = min(training.batch_size, samples)
    policy = "shrink" if limits.memory == "shrink" else "refuse"
    return fit(need, profile.memory_bytes, who=who, batch_size=asked, level=0.0, policy=policy)
