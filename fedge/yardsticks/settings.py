"""What yardsticks are called, and which settings of a scenario play no part in them. No torch here."""

from collections.abc import Callable
from typing import Any

from fedge.scenario.schema import Scenario
from fedge.scenario.training import Training

NAMES = ("fedavg", "fedavg_finetune", "fedbn", "fedrep", "ditto")  # fedge.yardsticks.methods

_METHODS: dict[str, Callable[[Training], bool]] = {  # of fedge's: whether it is on
    "training.pruning": lambda training: training.pruning.level != 0,
    "training.instance_filter": lambda training: training.instance_filter.kind != "none",
    "training.error_maps": lambda training: training.error_maps.prunes,
    "training.quantization": lambda training: training.quantization is not None,
    "training.serve": lambda training: training.serve != "last",
    "training.prior": lambda training: training.prior != "none",
    "training.source": lambda training: training.source is not None,
}
_SECTIONS = ("client", "limits", "energy", "availability", "selection", "faults", "schedule", "report")
NO_PART = (*_METHODS, *_SECTIONS)
"""A yardstick trains `training.what` of the whole network, on every sample of every client, in every round."""


def plays_no_part(key: str) -> bool:
    """Whether a dotted key of a scenario is one of them, or lies in one. A device class's `training` is `training`."""
    parts = key.split(".")
    if parts[0] == "fleet" and parts[2:3] == ["training"]:
        parts = parts[2:]
    return any(parts[: len(part)] == part for part in (known.split(".") for known in NO_PART))


def left_out(scenario: Scenario) -> list[str]:
    """Which of them the scenario sets: methods that are on, and sections that are not as they are without a word."""
    methods = [key for key, is_on in _METHODS.items() if any(map(is_on, _trainings(scenario)))]
    schedule = scenario.schedule.model_copy(update={"unseen": 0.0})  # which does play a part
    scenario = scenario.model_copy(update={"schedule": schedule})
    return [*methods, *(key for key in _SECTIONS if getattr(scenario, key) != _default(key))]


def refusal(name: str, scenario: Scenario) -> str | None:
    """Why the yardstick of that name would not be itself with these settings; None where it is."""
    if scenario.data.stream is not None:
        return f"yardstick {name!r} has no stream: leave data.stream out of the study"
    if any(each.exits is not None for each in _trainings(scenario)):
        return f"yardstick {name!r} trains networks without exits: leave training.exits out of the study, or of its arm"
    if name == "fedavg_finetune" and any(each.decay.per == "run" for each in _trainings(scenario)):
        return (
            f"yardstick {name!r} serves what the last round trains, and a learning rate that falls over the run is "
            "next to nothing by then: set training.decay.per to 'round'"
        )
    return None


def _trainings(scenario: Scenario) -> list[Training]:
    """The scenario's settings, and those of each device class."""
    return [scenario.training, *map(scenario.training_of, scenario.fleet)]


def _default(key: str) -> Any:
    return Scenario.model_fields[key].default
