"""Before messages are answered in processes of their own: what all of them would load, loaded once.

A small network of fedge's own is pruned and trained on noise with each method, so that libraries import what they put
off, and take up what they keep; and the memory that training takes is asked once. No row of a client's, and no program
of the user's, has a part in it.
"""

from contextlib import suppress
from pathlib import Path

import torch

from fedge.device.memory.demand import peak_bytes
from fedge.device.memory.peak import peak_training_memory
from fedge.errors import UserError
from fedge.models import build
from fedge.network.objective import trained_by
from fedge.prepare import Prepared
from fedge.protocol.run_config import RunConfig, scenario_of
from fedge.scenario.schema import Scenario
from fedge.training.drift_detector import Adwin
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.instance_filter.early import EarlyInstanceFilter
from fedge.training.loop import evaluate, train
from fedge.training.pruning.one_shot import prune
from fedge.training.update.what import freeze

_SHAPE = (1, 16, 16)


def warm(run_config: RunConfig) -> None:
    """For the run that is configured so. Leaves the process's generators as they were."""
    before = torch.get_rng_state()
    _train_on_noise()
    if "data-path" in run_config:
        scenario = scenario_of(run_config)
        if scenario.schedule.detector is not None:
            with suppress(UserError):  # where there is no river the device says it, in its own name
                Adwin(0.5)
        _ask_for_memory(scenario, Path(str(run_config["data-path"])))
    torch.set_rng_state(before)


def _ask_for_memory(scenario: Scenario, folder: Path) -> None:
    """Of each class's training of the unpruned network, where that is one of fedge's own."""
    prepared = Prepared.open(folder)
    if prepared.network.is_own:
        return
    shape = prepared.input_shape
    for device_class in scenario.fleet:
        training = scenario.training_of(device_class)
        model, task = prepared.build_model(), trained_by(prepared.asked, training.loss)
        freeze(model, training.what, shape)
        peak_bytes(model, training, training.batch_size, shape, task=task)


def _train_on_noise() -> None:
    model = build("lenet", num_classes=10, in_channels=1, image_size=16)
    peak_training_memory(lambda: model, batch_size=2, input_shape=_SHAPE)
    prune(model, 0.2, example_input=torch.zeros(1, *_SHAPE))
    batch = torch.randn(8, *_SHAPE), torch.arange(8)
    instance_filter = EarlyInstanceFilter(keep=0.5, in_channels=1, image_size=16, seed=0)
    train(
        model,
        [batch, batch],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        instance_filter=instance_filter,
        error_maps=ErrorMapPruner(model, keep=0.5),
    )
    evaluate(model, [batch])
