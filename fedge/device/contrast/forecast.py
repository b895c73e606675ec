"""What a round of learning by contrast will cost: views, scores, the loss's products, the probe; without data."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from fedge.catalog.facts import DatasetFacts
from fedge.device.budget.clock import Work, round_cost
from fedge.device.contrast.memory import contrast_fit
from fedge.scenario.fleet import HOUR_S
from fedge.scenario.methods.contrast import Contrast
from fedge.scenario.schema import DeviceClass, Scenario
from fedge.training.contrast.buffer import LOOKS
from fedge.training.contrast.nt_xent import NtXent
from fedge.training.contrast.probe import STEPS
from fedge.training.contrast.projection import WIDTH, in_place_of_head, linear_head, made_projection
from fedge.training.macs import count_forward, count_macs
from fedge.training.stats import TrainStats

DryRun = Callable[[Scenario, nn.Module, DatasetFacts, int, NtXent], TrainStats]
"""Trains a network on mini-batches of so many noise samples with the scenario's methods, and says what it cost."""


def by_contrast(
    scenario: Scenario,
    device_class: DeviceClass,
    model: nn.Module,
    facts: DatasetFacts,
    row: Mapping[str, Any],
    dry_run: DryRun,
) -> dict[str, Any]:
    """What is otherwise in a class's row of the forecast where it learns by contrast; nothing where it does not."""
    scenario = scenario.model_copy(update={"training": scenario.training_of(device_class)})
    choice, stream, device = (
        scenario.training.contrast,
        scenario.data.stream,
        scenario.profile_of(device_class),
    )
    if choice is None or stream is None:
        return {}
    model, interval_s = copy.deepcopy(model), scenario.availability.round_every_h * HOUR_S
    fit = contrast_fit(
        model, scenario.training, choice, scenario.limits, device,
        shape=facts.shape, classes=facts.num_classes, who=device_class.label,
    )  # fmt: skip
    frames = int(row["samples"])  # by a trace, which is not opened: as many as are stored
    if stream.rate_per_h is not None:
        frames = max(1, round(stream.rate_per_h * interval_s / HOUR_S * (1 - stream.holdout)))
    macs, steps = _work(scenario, choice, model, facts, frames, dry_run)
    work = Work(
        macs=macs,
        steps=steps,
        memory_bytes=fit.need_bytes,
        received_bytes=row["received_bytes"],
        sent_bytes=row["sent_bytes"],
    )
    compute_s = round_cost(device, work, scenario.clock).compute_s
    share = min(1.0, interval_s / compute_s) if stream.realtime else 1.0
    work = replace(work, macs=round(share * macs), steps=round(share * steps))
    cost = round_cost(device, work, scenario.clock)
    views = work.steps * 2 * choice.buffer
    return {
        "samples": frames,
        "memory_need_bytes": fit.asked_bytes,
        "memory_have_bytes": fit.have_bytes,
        "fits": fit.fits,
        "memory": fit.line,
        "macs_dense": count_macs(model, facts.shape).training * views,
        "macs_done": work.macs,
        "time_s": cost.time_s,
        "energy_j": cost.energy_j,
        "frames_train_per_s": frames / compute_s,
        "passes_asked": 1,
        "passes_in_time": interval_s / compute_s,
    }


def _work(
    scenario: Scenario, choice: Contrast, model: nn.Module, facts: DatasetFacts, frames: int, dry_run: DryRun
) -> tuple[int, int]:
    """MACs and steps of a round in which `frames` come and the buffer is full. The probe is reckoned at its most."""
    name, head = linear_head(model, facts.shape)
    task = NtXent(choice.temperature)
    segments, views = -(-frames // choice.buffer), 2 * choice.buffer
    with in_place_of_head(model, name, made_projection(head.in_features, 0)):
        forward = count_forward(model, facts.shape).forward
        stats = dry_run(scenario, model, facts, views, task)
    steps = segments * choice.updates_per_segment
    training = (stats.macs_done / stats.samples_seen * views + task.macs(views, WIDTH)) * steps
    looked = frames + segments * choice.buffer / choice.lazy if choice.rule in LOOKS else 0
    scoring = looked * forward * (2 if choice.rule == "contrast" else 1)
    few = choice.labels * facts.num_classes
    probing = few * (count_forward(model, facts.shape).forward + 2 * STEPS * head.weight.numel())
    return round(training + scoring + probing), steps
