"""A stream against what is known of the data, the devices and the training settings; before anything starts."""

import math

from fedge.catalog.facts import DatasetFacts
from fedge.errors import UserError
from fedge.scenario.data import Natural
from fedge.scenario.schema import Scenario
from fedge.scenario.stream.section import Stream

_FLOAT_BYTES = 4


def check_stream(scenario: Scenario, facts: DatasetFacts) -> None:
    """Raise UserError for the first thing that cannot be; nothing to check without a stream."""
    stream = scenario.data.stream
    if stream is None:
        return
    if facts.task != "classes":
        raise UserError(
            f"data.stream is for task 'classes', and {facts.name!r} has task {facts.task!r}: leave it out"
        )
    _check_privacy(scenario, stream)
    trainings = [scenario.training, *map(scenario.training_of, scenario.fleet)]
    if any(training.answers == "own" for training in trainings):
        raise UserError(
            "training.answers is 'own', the classes of a client's rows, and with data.stream these change from round "
            "to round: take 'all'"
        )
    if stream.keep == "filter" and any(training.instance_filter.kind != "early" for training in trainings):
        raise UserError(
            "data.stream.keep is 'filter', which goes by the early instance filter's score: set "
            "training.instance_filter.kind to 'early'"
        )
    _check_order(scenario, stream, facts)
    _check_drift(stream, facts)
    _check_memory(scenario, stream, facts)


def _check_privacy(scenario: Scenario, stream: Stream) -> None:
    """What a stream's counts and files would break."""
    if scenario.privacy.least_count > 1:
        raise UserError(
            f"privacy.least_count is {scenario.privacy.least_count}, and a stream's counts may be of a few frames: "
            "leave least_count out, or data.stream"
        )
    if stream.trace is not None and scenario.privacy.isolation == "client":
        raise UserError(
            "privacy.isolation is 'client', and data.stream.trace holds all clients' hours in one file: give rate_per_h"
        )


def _check_order(scenario: Scenario, stream: Stream, facts: DatasetFacts) -> None:
    if stream.order != "recorded":
        return
    if not facts.ordered:
        raise UserError(
            f"data.stream.order is 'recorded', which needs rows in the order of their recording; {facts.name!r} has "
            "none (har has; data of one's own where they were imported with a time): take 'iid', 'runs' or 'parked'"
        )
    if not isinstance(scenario.data.partition, Natural) and facts.people is not None:
        raise UserError(
            f"data.stream.order is 'recorded' and data.partition kind {scenario.data.partition.kind!r}: a client would "
            "go through the rows of several people at once; take 'natural'"
        )


def _check_drift(stream: Stream, facts: DatasetFacts) -> None:
    for index, drift in enumerate(stream.drift):
        if drift.what == "scene" and min(facts.shape[1:]) == 1:
            raise UserError(
                f"data.stream.drift.{index}.what is 'scene', which turns pictures, and {facts.name!r} has samples of "
                f"{' x '.join(map(str, facts.shape))}: take 'corruption', 'labels' or 'concept'"
            )


def _check_memory(scenario: Scenario, stream: Stream, facts: DatasetFacts) -> None:
    """The stored frames, as bytes where they are pictures, fit a device's memory."""
    each = math.prod(facts.shape) * (1 if facts.shape[1] > 1 else _FLOAT_BYTES)
    for device_class in scenario.fleet:
        have = scenario.profile_of(device_class).memory_bytes
        contrast = scenario.training_of(device_class).contrast
        buffer = 0 if contrast is None else contrast.buffer
        if (stream.memory + buffer) * each > have:
            beside = f", beside {buffer:,} of training.contrast.buffer" if buffer else ""
            raise UserError(
                f"data.stream.memory is {stream.memory:,} samples of {each:,} bytes, and device class "
                f"{device_class.label!r} has {have / 1e6:.3g} MB: at most "
                f"{max(0, int(have // each) - buffer):,}{beside}"
            )
