"""What a device is told to do where the plan is too large for it."""

import copy
from dataclasses import replace

import torch

from fedge.catalog.devices import profile
from fedge.device.memory.demand import fit_to_memory, peak_bytes
from fedge.models import build
from fedge.scenario.schema import Limits
from fedge.scenario.training import Pruning, Training
from fedge.training.pruning.one_shot import prune

SHAPE = (3, 32, 32)


def test_a_plan_is_shrunk_by_the_accounting_that_cuts():
    """By another count the device would cut more than it must or, at high levels, too little to fit."""
    model = build("resnet8", num_classes=100, in_channels=3, image_size=32)
    training = Training(batch_size=2, pruning=Pruning(accounting="adapt"))
    pruned = copy.deepcopy(model)
    prune(pruned, 0.05, example_input=torch.zeros(1, *SHAPE), accounting="adapt")
    need_bytes = peak_bytes(pruned, training, 2, SHAPE)
    fit = fit_to_memory(
        model,
        training,
        Limits(memory="shrink", overhead=1.0),
        replace(profile("jetson-nano"), memory_mb=need_bytes / 1e6),
        input_shape=SHAPE,
        samples=8,
        who="it",
    )
    assert (fit.level, fit.need_bytes) == (0.05, need_bytes)
