"""A GPU against the CPU: do whole runs come out alike, and what does a training step cost beside the bare loop?

Runs: a scenario with all methods, in this process, on the CPU and on the device. Told are the accuracies, in how many
reports every count is equal, and the seconds. Rounding may move a sample over a filter's threshold, and then counts
differ: it is the share of reports that says how often.

Steps: turns of `--steps` mini-batches of noise on the device, each contender after the other, the device waited for:

    bare            plain PyTorch, as a user's loop has it
    train           fedge.training.loop.train without methods
    filter, error maps, quantised, all      the same with early filter (keep 0.5), error maps (keep 0.25), 8 bits, all

It takes a few minutes on one GPU. `--device cpu` is there so that the code can be tried without one.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

import fedge
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.networks import CIFAR_SHAPE, network
from benchmarks.measure.results import Results, Row
from benchmarks.measure.steps import Batch, random_batches, train_step
from benchmarks.measure.table import by_machine, table
from fedge.console.observer import Observer
from fedge.launch import RunResult
from fedge.training.error_map import ErrorMapPruner
from fedge.training.instance_filter.filters import make_filter
from fedge.training.loop import train
from fedge.training.quantization import Quantization
from fedge.training.torch_device import gpu_facts, opened

ALL_METHODS = [
    "training.instance_filter={kind='early', keep=0.5}",
    "training.error_maps.keep=0.25",
    "training.quantization={bits=8}",
    "training.pruning={level=0.5, criterion='taylor'}",
]
RUNS: dict[str, tuple[str, list[str]]] = {
    "quickstart": ("quickstart", []),
    "resnet20": (
        "cifar10-pathological",
        [
            "model.name=resnet20",
            "model.factory.epochs=1",
            "data.factory_fraction=0.4",
            "data.split={train=0.4, validation=0.1, test=0.5}",
            "fleet.0.count=2",
            "fleet.1.count=2",
            "rounds=2",
            *ALL_METHODS,
        ],
    ),
}
SMALL = ["rounds=2", "training.epochs=1", "model.factory.epochs=1"]
COUNTS = (
    "samples_seen",
    "samples_kept",
    "macs_done",
    "macs_dense",
    "parameters",
    "test_count",
    "memory_bytes",
)
CONTENDERS = ("bare", "train", "filter", "error maps", "quantised", "all")


def run(options: Options, results: Results) -> None:
    """Whole runs, then steps."""
    device = opened(options.device)
    shared = {"device": options.device, "gpu": gpu_facts(device).get("gpu")}
    for name in options.runs:
        results.add(
            {"case": name, "part": "run", **shared, **compared(name, options.device, small=options.smoke)}
        )
    for name in options.models:
        for batch_size in options.batch_sizes:
            times = step_times(name, batch_size, device, options.steps, options.turns)
            case = {"case": name, "part": "steps", "batch_size": batch_size}
            results.add({**case, **shared, "turns": options.turns, "steps": options.steps, "step_ms": times})


def compared(name: str, device: str, *, small: bool) -> Row:
    """One scenario on the CPU and on the device."""
    with tempfile.TemporaryDirectory(prefix="fedge-gpu-") as folder:
        (here, cpu_s), (there, device_s) = (
            finished(name, where, Path(folder) / str(index), small=small)
            for index, where in enumerate(("cpu", device))
        )
        pairs = list(zip(here.reports(), there.reports(), strict=True))
        same = sum(all(mine.get(key) == other.get(key) for key in COUNTS) for mine, other in pairs)
    return {
        "reports": len(pairs),
        "same_counts": same,
        "accuracy": {"cpu": here.summary["accuracy"]["mean"], "device": there.summary["accuracy"]["mean"]},
        "macs_saved": {"cpu": here.summary["macs"]["saved"], "device": there.summary["macs"]["saved"]},
        "wall_s": {"cpu": round(cpu_s, 1), "device": round(device_s, 1)},
    }


def finished(name: str, device: str, out: Path, *, small: bool) -> tuple[RunResult, float]:
    """The run, and how long it took with its preparation, which a cache may spare."""
    scenario, changes = RUNS[name]
    changes = [*changes, "engine.kind=inline", f"engine.device={device}", *(SMALL if small else ())]
    if device == "cuda":
        classes = len(fedge.load_scenario(scenario).fleet)
        changes += [f"fleet.{index}.ray.num_gpus=0.25" for index in range(classes)]
    began_s = time.perf_counter()
    result = fedge.run(fedge.load_scenario(scenario, changes), out, observer=Observer())
    return result, time.perf_counter() - began_s


def step_times(name: str, batch_size: int, device: torch.device, steps: int, turns: int) -> dict[str, float]:
    """Milliseconds of a step by contender: the median over the turns."""
    batches = [
        (x_BCHW.to(device), y_B.to(device))
        for x_BCHW, y_B in random_batches(batch_size, CIFAR_SHAPE, count=steps)
    ]
    contenders = {kind: contender(kind, name, batches, device) for kind in CONTENDERS}
    seconds: dict[str, list[float]] = {kind: [] for kind in CONTENDERS}
    for turn in range(turns + 1):
        for kind, go in contenders.items():
            taken_s = waited_for(go, device)
            if turn:  # the first turn compiles, counts and fills caches
                seconds[kind].append(taken_s)
    return {kind: round(1000 * median(taken) / steps, 3) for kind, taken in seconds.items()}


def contender(kind: str, name: str, batches: list[Batch], device: torch.device) -> Callable[[], object]:
    """Trains a network of its own once through the batches."""
    model = network(name).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    if kind == "bare":
        model.train()

        def bare() -> None:
            for x_BCHW, y_B in batches:
                train_step(model, x_BCHW, y_B, optimizer)

        return bare
    channels, *size = CIFAR_SHAPE
    chosen = make_filter("early", 0.5, in_channels=channels, image_size=(size[0], size[1]), seed=1)
    methods: dict[str, Any] = {
        "instance_filter": chosen if kind in ("filter", "all") else None,
        "error_maps": ErrorMapPruner(model, 0.25) if kind in ("error maps", "all") else None,
        "quantization": Quantization(model, seed=1) if kind in ("quantised", "all") else None,
    }
    return lambda: train(model, batches, optimizer=optimizer, **methods)


def waited_for(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device is done with it."""
    synchronise(device)
    began_s = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began_s


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


RUN_COLUMNS = """
| scenario | device | reports | with equal counts | accuracy: CPU | device | MACs saved: CPU | device |\
 seconds: CPU | device |
| {case} | {on} | {reports} | {same_counts} | {accuracy[cpu]:.4f} | {accuracy[device]:.4f} |\
 {macs_saved[cpu]:.3f} | {macs_saved[device]:.3f} | {wall_s[cpu]:.1f} | {wall_s[device]:.1f} |
"""
STEP_COLUMNS = """
| network | device | batch | bare loop, ms | train | with filter | with error maps | quantised | all |
| {case} | {on} | {batch_size} | {step_ms[bare]:.2f} | {step_ms[train]:.2f} | {step_ms[filter]:.2f} |\
 {step_ms[error maps]:.2f} | {step_ms[quantised]:.2f} | {step_ms[all]:.2f} |
"""


def page(rows: list[Row]) -> str:
    """Both tables for each machine."""
    return "\n\n".join(part for machine, here in by_machine(rows).items() for part in _parts(machine, here))


def _parts(machine: str, rows: list[Row]) -> Iterator[str]:
    yield machine
    for part, columns in (("run", RUN_COLUMNS), ("steps", STEP_COLUMNS)):
        named = [row | {"on": row["gpu"] or row["device"]} for row in rows if row["part"] == part]
        if named:
            yield table(named, columns)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--runs", nargs="*", default=list(RUNS), choices=RUNS)
    parser.add_argument("--models", nargs="*", default=["resnet20", "mobilenet_v2"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--steps", type=int, default=10, help="mini-batches of a turn")
    parser.add_argument("--turns", type=int, default=9)


BENCHMARK = Benchmark(
    name="gpu",
    purpose="A GPU against the CPU: whole runs alike, and training steps against the bare loop",
    takes="a few minutes of a GPU; needs CIFAR-10",
    key=("case", "part", "device", "gpu", "batch_size", "machine"),
    run=run,
    page=page,
    options=add_options,
    smoke="--device cpu --runs quickstart --models resnet8 --batch-sizes 8 --steps 2 --turns 1",
)
