"""What a scenario will cost, per device class, before anything runs: memory, arithmetic, virtual time and energy.

No data is opened. Shapes come from the data set's facts, memory from fake tensors, and multiply-accumulates from a dry
run of a few batches of noise through the very methods that the scenario names, pruned as it says.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fedge.catalog.datasets import dataset_facts
from fedge.catalog.devices import DeviceProfile
from fedge.catalog.facts import DatasetFacts
from fedge.catalog.fingerprint import parse_fingerprint
from fedge.coordinator.schedule import plan_round
from fedge.device.adaptation.forecast import foreseen, head_stats
from fedge.device.budget.clock import Work, round_cost
from fedge.device.contrast.forecast import by_contrast
from fedge.device.level import Bounds, Ranking, find_level
from fedge.device.memory.demand import fit_to_memory, peak_bytes
from fedge.device.memory.fitting import Fit
from fedge.device.methods import Methods, made_for
from fedge.device.time.pricing import StepTime, learnt_s
from fedge.errors import UserError
from fedge.launch import host_request
from fedge.network.factory import initial_model
from fedge.network.objective import task_named, taught_by, trained_by
from fedge.privacy.leaving import sent_bytes
from fedge.privacy.noise.forecast import expected
from fedge.progress import tell
from fedge.protocol import RoundReport, content_bytes
from fedge.protocol.budget import bits_at_most
from fedge.protocol.report import MOST_EPOCHS, STREAM_FIELDS
from fedge.scenario.fleet import HOUR_S
from fedge.scenario.methods.exits import Exits
from fedge.scenario.schema import DeviceClass, Scenario
from fedge.scenario.training import LevelSearch, Pruning, Training
from fedge.seeding import derive_seed
from fedge.training.exits.network import with_exits
from fedge.training.loop import train
from fedge.training.macs import count_macs
from fedge.training.pruning.criteria import CRITERIA, macs_per_sample
from fedge.training.pruning.one_shot import prune
from fedge.training.stats import TrainStats
from fedge.training.task import Task
from fedge.training.update.what import freeze

DRY_BATCHES = 8


def plan_scenario(scenario: Scenario, here: str | None = None) -> list[dict[str, Any]]:
    """One row per device class: what a mean client of it needs and spends in a round after pruning.

    here: the text of a fingerprint of the machine that will simulate, whose seconds stand beside.
    """
    facts = dataset_facts(scenario.data.dataset)
    pool = facts.size * (1 - scenario.data.factory_fraction)
    samples = max(1, round(pool / scenario.clients * scenario.data.split.train))
    if scenario.data.stream is not None:
        samples = scenario.data.stream.memory
    tell("forecast")
    model = initial_model(scenario, facts.num_classes, facts.shape, facts.task)
    rows = []
    for index, device_class in enumerate(scenario.fleet):
        tell("forecast", index, len(scenario.fleet))
        row = _plan_class(scenario, device_class, model, facts, samples, here)
        rows.append(row | by_contrast(scenario, device_class, model, facts, row, _dry_run))
    return rows


def _plan_class(
    scenario: Scenario,
    device_class: DeviceClass,
    model: nn.Module,
    facts: DatasetFacts,
    samples: int,
    here: str | None,
) -> dict[str, Any]:
    scenario = scenario.model_copy(update={"training": scenario.training_of(device_class)})
    training, device, shape = scenario.training, scenario.profile_of(device_class), facts.shape
    task = trained_by(task_named(facts.task), training.loss)
    request = host_request(scenario, device_class)
    dense_macs = count_macs(model, shape).training
    parameters = _parameters(model)
    model = copy.deepcopy(model)
    if training.exits is None:
        freeze(model, training.what, shape)
    else:
        model, task = _exits(model, training.exits, facts), taught_by(task, training.exits)
    fit = fit_to_memory(
        model,
        training,
        scenario.limits,
        device,
        input_shape=shape,
        samples=samples,
        task=task,
        who=device_class.label,
    )
    level = _level(scenario, device_class, model, shape, samples, dense_macs, task)
    pruned = _pruned(model, level or fit.level, shape, training.pruning)
    stats = _dry_run(scenario, pruned, facts, fit.batch_size, task)
    seen = samples * training.epochs
    macs_done = round(stats.macs_done / stats.samples_seen * seen)
    peak = peak_bytes(pruned, training, fit.batch_size, shape, task=task, samples=samples)
    full = samples / (-(-samples // fit.batch_size) * fit.batch_size)

    def timed(on: DeviceProfile) -> float | None:
        size = fit.batch_size
        return learnt_s(on, pruned, shape, macs=macs_done, stats=stats, batch_size=size, fill=full)

    work = Work(
        macs=macs_done,
        steps=-(-samples // fit.batch_size) * training.epochs,
        memory_bytes=int(scenario.limits.overhead * peak),
        received_bytes=content_bytes(plan_round(scenario, scenario.rounds).content()),
        sent_bytes=_report_bytes(scenario),
        learnt_s=timed(device),
    )
    cost = round_cost(device, work, scenario.clock)
    keeping_up = _keeping_up(scenario, samples, seen / cost.compute_s)
    regrowing = _regrowing(scenario, device, model, facts, fit, work, task)
    if (share := _share_in_time(scenario, cost.compute_s)) < 1:
        seen = round(share * seen)
        work = _in_time(scenario, device, work)
        macs_done, cost = work.macs, round_cost(device, work, scenario.clock)
    return {
        "class": device_class.label,
        "clients": device_class.count,
        "host_cpus": request.num_cpus,
        "host_memory_mb": request.memory_bytes / 1e6,
        "samples": samples,
        "memory_need_bytes": fit.asked_bytes,
        "memory_have_bytes": fit.have_bytes,
        "fits": fit.fits,
        "memory": fit.line,
        "level": level,
        "parameters_left": _parameters(pruned) / parameters,
        "macs_dense": dense_macs * seen,
        "macs_done": macs_done,
        "received_bytes": work.received_bytes,
        "sent_bytes": work.sent_bytes,
        "sent_bits_at_most": bits_at_most(
            training.epochs,
            scenario.report.figures,
            facts,
            served=0 if training.serve == "last" else scenario.all_rounds,
            frames=scenario.stream_frames,
            detecting=scenario.schedule.detector is not None,
            exits=scenario.training.exits.most if scenario.training.exits else 0,
        ),
        "time_s": cost.time_s,
        "energy_j": cost.energy_j,
        **foreseen(training, pruned, shape, facts.num_classes, looked_at=_looked_at(scenario, samples)),
        **_learnt(device, here, timed),
        **keeping_up,
        **regrowing,
        **_noise(scenario),
        **_estimated(training),
    }


def _looked_at(scenario: Scenario, samples: int) -> int:
    """Unlabelled rows from which a mean client estimates its label prior: of a stream the stored ones, each round."""
    split, most = scenario.data.split, scenario.training.adaptation.samples
    rows = samples
    if scenario.data.stream is None:
        rows = round(samples * (split.train + split.validation) / split.train)
    return rows if most is None else min(rows, most)


def _exits(trunk: nn.Module, exits: Exits, facts: DatasetFacts) -> nn.Module:
    """The network with its exits, which alone are trained: a round without retraining or a look for the prior."""
    model = with_exits(trunk, facts.shape, facts.num_classes, where=exits.where, channels=exits.channels)
    model.freeze_trunk()
    model.whole = exits.needs_teacher
    return model


def _estimated(training: Training) -> dict[str, Any]:
    """Whether the data decide how much is multiplied: of elements, as many stay as the errors' numbers make it."""
    of_elements = training.error_maps.kind == "element" and training.error_maps.prunes
    return {"macs_estimated": True} if of_elements else {}


def _learnt(
    device: DeviceProfile, here: str | None, timed: Callable[[DeviceProfile], float | None]
) -> dict[str, Any]:
    """Whose fingerprint the class's time goes by, and what its round takes on the machine of `here`."""
    row: dict[str, Any] = {}
    if device.fingerprint is not None:
        machine = parse_fingerprint(device.fingerprint).machine
        row["time_learnt_on"] = str(machine.get("processor"))
    if here is not None:
        row["here_s"] = timed(replace(device, fingerprint=here))
    return row


def _noise(scenario: Scenario) -> dict[str, Any]:
    """How far noise puts a mean over the clients off, 0..1; nothing without noise."""
    noise = expected(scenario)
    if noise is None:
        return {}
    return {"noise_sd": noise.sd, "noise_usable": noise.usable, "noise_clients_enough": noise.enough}


def _regrowing(
    scenario: Scenario,
    device: DeviceProfile,
    model: nn.Module,
    facts: DatasetFacts,
    fit: Fit,
    after: Work,
    task: Task,
) -> dict[str, Any]:
    """What a round of a regrowth takes at most, of whole mini-batches; nothing where no device grows back.

    after: the work of a round after pruning. Most is a ranking and the training of the whole network: a device trains
    that for finetune_rounds, then, or at once, ranks its channels anew and trains what is left, of which only data
    tell how dear it is. What a search for the level retrains comes on top. `memory_need_bytes` is of the whole network
    in any case.
    """
    if not scenario.schedule.regrows:
        return {}
    training, shape = scenario.training, facts.shape
    methods = Methods(training, shape, seed=lambda purpose: 0, filter_seed=0, programs=scenario.programs)
    ranking = macs_per_sample(methods.criterion, count_macs(copy.deepcopy(model).requires_grad_(True), shape))
    stats = _dry_run(scenario, model, facts, fit.batch_size, task)
    seen = after.steps * fit.batch_size
    macs = stats.macs_done / stats.samples_seen * seen + ranking * min(training.pruning.ranking_samples, seen)
    peak = peak_bytes(model, training, fit.batch_size, shape, task=task, samples=seen)
    learnt = learnt_s(device, model, shape, macs=round(macs), stats=stats, batch_size=fit.batch_size)
    memory_bytes = int(scenario.limits.overhead * peak)
    most = replace(after, macs=round(macs), memory_bytes=memory_bytes, learnt_s=learnt)
    most = _in_time(scenario, device, most)
    cost = round_cost(device, most, scenario.clock)
    return {"regrow_macs": most.macs, "regrow_time_s": cost.time_s, "regrow_energy_j": cost.energy_j}


def _in_time(scenario: Scenario, device: DeviceProfile, work: Work) -> Work:
    """What of it is done when the next round begins."""
    share = _share_in_time(scenario, round_cost(device, work, scenario.clock).compute_s)
    if share == 1:
        return work
    learnt = None if work.learnt_s is None else share * work.learnt_s
    return replace(work, macs=round(share * work.macs), steps=round(share * work.steps), learnt_s=learnt)


def _share_in_time(scenario: Scenario, compute_s: float) -> float:
    """Of a round's computing, what is done when the next round begins; all where no stream comes in real time."""
    stream = scenario.data.stream
    if stream is None or not stream.realtime:
        return 1.0
    return min(1.0, scenario.availability.round_every_h * HOUR_S / compute_s)


def _keeping_up(scenario: Scenario, samples: int, frames_hz: float) -> dict[str, Any]:
    """Whether a class that trains on `frames_hz` frames a second keeps up with its stream; nothing without one.

    passes: over `samples` stored frames, from the beginning of a round to that of the next.
    """
    stream = scenario.data.stream
    if stream is None:
        return {}
    interval_s = scenario.availability.round_every_h * HOUR_S
    come_hz = None if stream.rate_per_h is None else stream.rate_per_h * (1 - stream.holdout) / HOUR_S
    return {
        "frames_come_per_s": come_hz,
        "frames_train_per_s": frames_hz,
        "passes_asked": scenario.training.epochs,
        "passes_in_time": frames_hz * interval_s / samples,
    }


def _level(
    scenario: Scenario,
    device_class: DeviceClass,
    model: nn.Module,
    shape: tuple[int, int, int],
    samples: int,
    dense_macs: int,
    task: Task,
) -> float | None:
    """The level of the class: the scenario's, or what its search would find; None where only data can tell."""
    pruning = scenario.training.pruning
    if isinstance(pruning.level, LevelSearch) and pruning.level.search == "accuracy":
        return None
    ranking = Ranking(
        criterion=CRITERIA["l1"],  # a forecast has no data to rank by
        batches=lambda: (),
        example_input=torch.zeros(1, *shape),
        seed=scenario.seed,
    )
    bounds = _bounds(scenario, device_class, shape, samples, dense_macs, task)
    try:
        return find_level(model, pruning, ranking, bounds).level
    except UserError as error:
        raise UserError(f"device class {device_class.label!r}: {error}") from None


def _bounds(
    scenario: Scenario,
    device_class: DeviceClass,
    shape: tuple[int, int, int],
    samples: int,
    dense_macs: int,
    task: Task,
) -> Bounds:
    """What the class's search holds networks against, but for accuracy, which only data can tell."""
    training, device = scenario.training, scenario.profile_of(device_class)
    batch_size = min(training.batch_size, samples)

    def peak(cut: nn.Module) -> int:
        return peak_bytes(cut, training, batch_size, shape, task=task, samples=samples)

    return Bounds(
        batch_size=batch_size,
        memory_bytes=device.memory_bytes,
        peak_bytes=peak,
        dense_macs=dense_macs,
        step_s=StepTime(
            profile=device,
            clock=scenario.clock,
            training=training,
            input_shape=shape,
            batch_size=batch_size,
            slowness=1.0,
            peak_bytes=lambda cut: int(scenario.limits.overhead * peak(cut)),
        ),
        steps=-(-samples // batch_size) * training.epochs,
        accuracy=lambda cut: 0.0,
        retrain=lambda cut: 0.0,
    )


def _pruned(model: nn.Module, level: float, shape: tuple[int, int, int], pruning: Pruning) -> nn.Module:
    pruned = copy.deepcopy(model)
    if level:
        prune(pruned, level, example_input=torch.zeros(1, *shape), **pruning.cut)
    return pruned


def _dry_run(
    scenario: Scenario, model: nn.Module, facts: DatasetFacts, batch_size: int, task: Task
) -> TrainStats:
    """Train a copy on noise with the scenario's methods, as a device makes them, to count what they cost."""
    if scenario.training.source is not None:
        return head_stats(scenario.training, model, facts.shape)
    model, shape = copy.deepcopy(model), facts.shape
    methods = Methods(
        scenario.training,
        shape,
        seed=lambda purpose: derive_seed(scenario.seed, 0, scenario.rounds, purpose),
        filter_seed=derive_seed(scenario.seed, 0, "instance_filter"),
        programs=scenario.programs,
    )
    generator = torch.Generator().manual_seed(scenario.seed)
    x_BCHW = torch.randn(batch_size, *shape, generator=generator)
    y_B = task.draw(batch_size, facts.num_classes, generator)
    optimizer = made_for(model, methods.optimizer)
    brought: dict[str, Any] = {
        "instance_filter": methods.instance_filter(),
        "error_maps": methods.error_maps(model),
        "quantization": methods.quantization(model),
    }
    epochs = 2 if scenario.training.error_maps.alternate else 1  # a dense one and a pruned one
    done = (
        train(model, [(x_BCHW, y_B)] * DRY_BATCHES, optimizer=optimizer, task=task, **brought)
        for _ in range(epochs)
    )
    return sum(done, start=TrainStats())


def _report_bytes(scenario: Scenario) -> int:
    if (instead := sent_bytes(scenario, scenario.rounds)) is not None:
        return instead
    own = {name: figure.least for name, figure in scenario.report.figures.items()}
    losses = [0.0] * min(scenario.training.epochs, MOST_EPOCHS)
    counts: dict[str, Any] = dict.fromkeys(STREAM_FIELDS if scenario.data.stream is not None else (), 0)
    counts |= {"alarms": 0} if scenario.schedule.detector is not None else {}
    report = RoundReport(round=1, client=0, train_loss=0.0, epoch_loss=losses, own=own, **counts)
    return content_bytes(report.content())


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
