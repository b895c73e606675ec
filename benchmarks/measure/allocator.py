"""What training took of memory in truth, by the allocator's own events: the judge of fedge.device.memory."""

import copy
import gc
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.profiler import ProfilerActivity, profile

from fedge.device.memory.peak import OPTIMIZERS, Optimizer, train_steps
from fedge.training.memory_format import fast_order
from fedge.training.update.what import training_mode


def allocator_peak(
    model: nn.Module,
    *,
    batch_size: int,
    input_shape: tuple[int, int, int],
    optimizer: Optimizer = "sgd",
    error_maps: float | Mapping[str, Any] | None = None,
) -> int:
    """Bytes at the peak of really training a copy of `model` for two steps on the CPU, the copy included.

    Two, because an optimiser's state first exists after one. The peak is the largest sum of torch.profiler's
    allocations and releases up to any moment; arguments as in `peak_training_memory`.
    """
    order = fast_order(model, batch_size, input_shape)
    gc.collect()  # what an earlier trace saw allocated would count as released in this one
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        trained = copy.deepcopy(model)
        training_mode(trained)
        update = OPTIMIZERS[optimizer](trained.parameters())
        train_steps(2, trained, update, batch_size, input_shape, error_maps, order)
    now = peak = 0
    for event in sorted(trace.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak
