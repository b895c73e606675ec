"""Personal early exits beside what would beat them: accuracy, MACs of training, MACs of an answer.

    cifar100   the factory model of the scenario cifar100-subsets, or a deeper one by `--net`; persons of 2 classes
               (four), 5 (three) and 10 (two), none of them twice, whose pictures that model has not seen: 100 of a
               class to train on, 50 for validation, 50 for the test
    har        HAR CNN; thirty persons of UCI HAR, whole runs trained or tested on, never both
    digits     a few of scikit-learn's digits, for a smoke run

    told       the factory model masked to the person's classes: what costs nothing
    generic    exits as shipped, told the classes: the free lunch of exits
    labels     exits from labels;  hard, soft: from the last exit, its prior corrected by EM, without a label
    labels_half   as labels, on the half of each mini-batch that the first exit is least sure of
    soft_raw   as soft, by a teacher whose prior is not corrected
    whole      all of the network, from labels, no exits
    pruned_..  as whole, cut by taylor to that level before

An arm is one round of `--epochs` local epochs. Thresholds are chosen on validation samples (for arms without labels by
the last exit's answers to them), for several slacks, from one look at every exit; test samples choose nothing.
"""

import argparse
import csv
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.results import Results, Row
from benchmarks.measure.table import markdown
from fedge.console.observer import Observer
from fedge.coordinator.schedule import plan_round
from fedge.data.datasets import load_dataset
from fedge.data.partition import divide
from fedge.device.device import Device
from fedge.device.early_exits.personal import personal_of
from fedge.device.location import Location
from fedge.device.simulated import Simulated
from fedge.device.state import StateFolder
from fedge.errors import UserError
from fedge.launch import run_checked
from fedge.paths import data_root
from fedge.prepare import prepare
from fedge.scenario.load import load_scenario
from fedge.scenario.schema import Scenario
from fedge.training.exits.leaving import chosen_thresholds
from fedge.training.macs import count_forward

SLACKS = (0.0, 0.02, 0.05, 0.1, 0.2)
PERSONS = (2,) * 4 + (5,) * 3 + (10,) * 2  # classes of each
PER_CLASS = {"train": 100, "validation": 50, "test": 50}
PLAIN = ("training.pruning.level=0.0", "training.instance_filter.kind=none", "training.error_maps.keep=1.0")
EXITS = {
    "generic": ("training.exits.teach=none", "training.answers=own"),
    "labels": ("training.exits.teach=labels",),
    "labels_half": ("training.exits.teach=labels", "training.instance_filter={kind='first_exit', keep=0.5}"),
    "hard": ("training.exits.teach=hard",),
    "soft": ("training.exits.teach=soft",),
    "soft_raw": ("training.exits.teach=soft", "training.exits.prior=none"),
}
ARMS = ("labels", "whole", "soft", "generic", "pruned_0.5", "labels_half", "hard", "soft_raw", "pruned_0.7")


USUAL = {"cifar100": (0.02, 0.05, 3), "har": (0.01, 0.02, 10), "digits": (0.01, 0.05, 1)}
"""Learning rates of networks and of exits, epochs of exits in the factory. None of them was tuned."""


@dataclass(frozen=True)
class Cell:
    """A run: one arm of one world and seed."""

    world: str
    seed: int
    arm: str


def run(options: Options, results: Results) -> None:
    """Every arm and seed that has no row yet."""
    with tempfile.TemporaryDirectory(prefix="fedge-exits-") as folder:
        factory = _factory(options, Path(folder))
        done = {tuple(row[key] for key in ("world", "seed", "arm")) for row in results.rows}
        for seed in options.seeds:
            for arm in options.arms:
                if (options.world, seed, arm) not in done:
                    for row in list(_rows(Cell(options.world, seed, arm), factory, options, Path(folder))):
                        results.add(row)


def _factory(options: Options, folder: Path) -> list[str]:
    """A scenario's name and changes by which every arm ships the same trunk, trained once."""
    seed = f"data.seed={options.data_seed}"
    if options.world != "cifar100":
        shipped = _world(options)
        prepared = prepare(load_scenario(shipped[0], shipped[1:]))
    else:
        base = load_scenario("cifar100-subsets", [seed, f"model.name={options.net}"])
        prepared = prepare(base)
        _write_persons(folder / "persons.csv", base)
        shipped = [
            "cifar100-subsets",
            *_common(options),
            f"data.partition={{kind='given', file='{folder / 'persons.csv'}'}}",
            f"model.name={options.net}",
            f"fleet=[{{device='jetson-tx2', count={len(PERSONS)}}}]",
            "training.answers=all",
            "training.batch_size=32",
        ]
    return [*shipped, f"model.weights={prepared.folder}/factory.safetensors", "model.factory.epochs=0"]


def _common(options: Options) -> list[str]:
    return [
        *PLAIN,
        "rounds=1",
        "engine.kind=inline",
        "schedule={kind='train_only'}",
        f"training.epochs={options.epochs}",
        f"data.seed={options.data_seed}",
    ]


def _world(options: Options) -> list[str]:
    if options.world == "har":
        return ["har-subjects", *_common(options), "training.batch_size=16"]
    two = "data.partition={kind='pathological', classes=2}"
    return ["quickstart", *_common(options), two, "model.factory.epochs=1"]


def _write_persons(file: Path, base: Scenario) -> None:
    """row,client,part: each person's classes are nobody else's, and no row is the factory's."""
    dataset = load_dataset("cifar100", data_root(base.data.root))
    free_N = np.ones(len(dataset), dtype=bool)
    free_N[divide(dataset, base.data, clients=base.clients, seed=base.world).factory.train] = False
    chance, start = np.random.default_rng(base.world), 0
    classes, rows = chance.permutation(dataset.num_classes), []
    parts = [part for part, size in PER_CLASS.items() for _ in range(size)]
    for client, count in enumerate(PERSONS):
        for own in classes[start : start + count]:
            chosen = chance.permutation(np.flatnonzero(free_N & (dataset.y == own)))[: len(parts)]
            rows += [(int(row), client, part) for row, part in zip(chosen, parts, strict=True)]
        start += count
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("row", "client", "part"), *sorted(rows)])


def _rows(cell: Cell, factory: Sequence[str], options: Options, folder: Path) -> Iterator[Row]:
    name, *changes = factory
    usual = USUAL[cell.world]
    rate = options.exits_rate or usual[1] if cell.arm in EXITS else options.rate or usual[0]
    changes += [f"seed={cell.seed}", f"training.learning_rate={rate}"]
    if cell.arm in EXITS:
        changes += [
            f"training.exits.factory_epochs={options.exit_epochs or usual[2]}",
            f"training.exits.channels={options.channels}",
            *EXITS[cell.arm],
        ]
    if cell.arm.startswith("pruned_"):
        level = cell.arm.removeprefix("pruned_")
        changes += [
            f"training.pruning.level={level}",
            "schedule={kind='finetune_prune_retrain', finetune_rounds=0}",
        ]
    scenario = load_scenario(name, changes)
    out = folder / f"{cell.world}-{cell.seed}-{cell.arm}"
    result = run_checked(scenario, out, resume=False, overwrite=True, observer=Observer())
    prepared_at = Path(prepare(scenario).folder)
    for report in result.reports():
        if report["status"] != "ok":
            raise UserError(f"{cell.arm}: client {report['client']} ended with {report['status']}")
        yield {**vars(cell), "client": report["client"], **_of_client(scenario, prepared_at, out, report)}


def _of_client(scenario: Scenario, prepared_at: Path, out: Path, report: Row) -> dict[str, Any]:
    client = report["client"]
    location = Location(
        client, client, prepared_at, out / "devices" / str(client), Simulated.of(scenario, client)
    )
    state = StateFolder(location.device_folder).at(1)
    assert state is not None
    device = Device(location, plan_round(scenario, 1), state)
    kept = (
        "test_count",
        "test_correct",
        "factory_correct",
        "told_correct",
        "macs_done",
        "samples_seen",
        "memory_bytes",
    )
    macs = count_forward(device.model, device.prepared.input_shape).forward
    trunk = device.prepared.network.trunk.build(device.prepared.num_classes, device.prepared.input_shape)
    figures = {
        "classes": len(device.shard.own_classes),
        **{name: report[name] for name in kept},
        "macs_answer": macs,
        "macs_trunk": count_forward(trunk, device.prepared.input_shape).forward,
    }
    personal = personal_of(device._round)
    if personal is None:
        return figures
    on_validation, on_test = personal.judged("validation"), personal.judged("test")
    curve = []
    for slack in SLACKS:
        left, right, _ = on_test.tallies(chosen_thresholds(on_validation, slack=slack))
        curve.append({"slack": slack, "left": left, "right": sum(right)})
    return {
        **figures,
        "alone": report["exit_alone"],
        "exit_macs": report["exit_macs"],
        "answer_s": report["answer_s"],
        "curve": curve,
    }


# --- the page -------------------------------------------------------------------------------------------


def page(rows: list[Row]) -> str:
    """A table of what is trained and one of how samples leave, per world and number of classes."""
    parts = []
    for world in dict.fromkeys(row["world"] for row in rows):
        here = [row for row in rows if row["world"] == world]
        groups = sorted({row["classes"] for row in here}) if world == "cifar100" else [None]
        for classes in groups:
            own = [row for row in here if classes in (None, row["classes"])]
            who = f"{world}, persons of {classes} classes" if classes else f"{world}, all persons"
            parts.append(f"## {who}\n\n{_accuracies(own)}\n\n{_cascades(own)}")
    return "\n\n".join(parts)


def _by_arm(rows: list[Row]) -> dict[str, list[Row]]:
    return {
        arm: [row for row in rows if row["arm"] == arm] for arm in dict.fromkeys(row["arm"] for row in rows)
    }


def _share(rows: list[Row], right: str) -> str:
    return _spread(rows, lambda row: row[right] / row["test_count"])


def _spread(rows: list[Row], figure: Any) -> str:
    """Mean over persons, in %, and over seeds the standard deviation of that mean."""
    seeds = dict.fromkeys(row["seed"] for row in rows)
    means = [
        100 * mean(figure(row) for row in rows if row["seed"] == seed and row["test_count"]) for seed in seeds
    ]
    return f"{mean(means):.1f} ± {stdev(means):.1f}" if len(means) > 1 else f"{means[0]:.1f}"


def _accuracies(rows: list[Row]) -> str:
    """Each exit alone; what its training cost of what training the whole network costs."""
    arms = _by_arm(rows)
    whole = _macs_of_training(arms["whole"]) if "whole" in arms else None
    first = next(iter(arms.values()))
    lines: list[list[Any]] = [
        ["as it is", None, None, None, None, _share(first, "factory_correct"), None, None],
        ["told", None, None, None, None, _share(first, "told_correct"), None, None],
    ]
    for arm, own in arms.items():
        exits = len(own[0].get("exit_macs", [])) - 1
        alone = [_spread(own, lambda row, k=k: row["alone"][k] / row["test_count"]) for k in range(exits)]
        last = (
            _spread(own, lambda row: row["alone"][-1] / row["test_count"])
            if exits > 0
            else _share(own, "test_correct")
        )
        done = _macs_of_training(own)
        share = f"{done / whole:.2f}" if whole else None
        memory = f"{mean(row['memory_bytes'] for row in own) / 1e6:.1f}" if own[0]["memory_bytes"] else None
        lines.append(
            [arm, len({row["seed"] for row in own}), *alone, *[None] * (3 - len(alone)), last, share, memory]
        )
    heads = ["arm", "seeds", "exit 1", "exit 2", "exit 3", "last", "training MACs / whole", "memory, MB"]
    return "Accuracy in %, each exit answering all samples.\n\n" + markdown(heads, lines)


def _macs_of_training(rows: list[Row]) -> float:
    """Of a person in a run, in the mean."""
    return mean(row["macs_done"] for row in rows)


def _cascades(rows: list[Row]) -> str:
    """By slack: accuracy, mean and worst MACs of an answer, as shares of the trunk's; other networks for comparison."""
    lines: list[list[Any]] = []
    for arm, own in _by_arm(rows).items():
        if "curve" not in own[0]:
            share = mean(row["macs_answer"] / row["macs_trunk"] for row in own)
            lines.append([arm, None, _share(own, "test_correct"), f"{share:.2f}", f"{share:.2f}"])
            continue
        worst = mean(row["exit_macs"][-1] / row["macs_trunk"] for row in own)
        for place, slack in enumerate(point["slack"] for point in own[0]["curve"]):
            accuracy = _spread(own, lambda row, place=place: row["curve"][place]["right"] / row["test_count"])
            spent = mean(
                sum(n * macs for n, macs in zip(row["curve"][place]["left"], row["exit_macs"], strict=True))
                / (row["test_count"] * row["macs_trunk"])
                for row in own
                if row["test_count"]
            )
            lines.append([arm, slack, accuracy, f"{spent:.2f}", f"{worst:.2f}"])
    heads = ["arm", "slack", "accuracy, %", "mean MACs / trunk", "worst MACs / trunk"]
    return "Leaving at the first exit that is sure enough.\n\n" + markdown(heads, lines)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of the command line."""
    parser.add_argument("--world", choices=("cifar100", "har", "digits"), default="har")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(1, 2, 3))
    parser.add_argument("--epochs", type=int, default=5, help="local epochs")
    parser.add_argument("--rate", type=float, help="learning rate of networks; default: the world's")
    parser.add_argument("--exits-rate", type=float, help="learning rate of exits; likewise")
    parser.add_argument("--net", default="resnet8", help="on CIFAR-100: resnet8, resnet20, ...")
    parser.add_argument("--exit-epochs", type=int, help="of the exits in the factory; likewise")
    parser.add_argument("--channels", type=int, default=32, help="of an exit's convolution")
    parser.add_argument("--data-seed", type=int, default=7, help="who holds what")


BENCHMARK = Benchmark(
    name="exits",
    purpose="Personal early exits beside what would beat them",
    takes="five minutes of one core on HAR; three a seed on CIFAR-100 with ResNet-8, and ten for its factory model",
    key=("world", "seed", "arm", "client"),
    run=run,
    page=page,
    options=add_options,
    smoke="--world digits --seeds 1 --arms generic soft whole --epochs 1 --exit-epochs 1",
)
