"""Accuracy against remaining compute: the filters, the error maps and the baselines on the same streams.

    python -m benchmarks.eif_emp --preset smoke          a minute on one core
    python -m benchmarks.eif_emp --preset cpu            LeNet / MNIST in full (18.7k iterations), small CIFAR-10 runs
    python -m benchmarks.eif_emp --preset full --device cuda     ResNet-74/110 and VGG-16, 64k iterations

Every finished cell (task, regime, method, seed) is a line of `--out`; cells already there are not run again, so a
broken run goes on where it stopped. `python -m benchmarks.eif_emp_table` turns the lines into tables.

The hyperparameters are the paper's (arXiv 2007.03213, section IV): LeNet: batch 64, learning rate 0.01, momentum 0.5;
CIFAR: batch 128, learning rate 0.1, momentum 0.9, weight decay 1e-4, divided by 10 at 1/2 and 3/4 of the iterations.
`smb` is dense training over a `keep` share of the iterations with the learning rate's schedule rescaled to them.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean

import torch
from torch import nn

from benchmarks.streams import Stream
from fedge.data.facts import default_root
from fedge.models import build
from fedge.training.instance_filter import InstanceFilter, make_filter
from fedge.training.loop import TrainStats, evaluate, train

CURVE_POINTS = 40
LAST_POINTS = 5
"""Points at the end whose tests are averaged: at a constant learning rate the last iterate alone is noisy."""
OUT = Path(__file__).parent / "results" / "eif_emp.jsonl"


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is done to plain SGD; `name` is its row in the tables. The default is dense."""

    name: str = "dense"
    filter: str = "none"
    keep: float = 1.0
    filter_options: tuple[tuple[str, float | str], ...] = ()
    iteration_share: float = 1.0
    error_keep: float = 1.0
    error_options: tuple[tuple[str, float | str], ...] = ()
    quantised: bool = False


@dataclass(frozen=True, kw_only=True)
class Task:
    """A data set, a network and the paper's recipe for it."""

    dataset: str
    model: str
    iterations: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float = 0.0
    drops: tuple[float, ...] = ()
    """Shares of the iterations after which the learning rate is divided by 10."""


LENET = Task(
    dataset="mnist", model="lenet", iterations=18_700, batch_size=64, learning_rate=0.01, momentum=0.5
)
LENET_DECAYED = replace(LENET, drops=(0.75,))
CIFAR = Task(
    dataset="cifar10", model="resnet110", iterations=64_000, batch_size=128, learning_rate=0.1, momentum=0.9,
    weight_decay=1e-4, drops=(0.5, 0.75),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One training run."""

    task: Task
    regime: str
    method: Method
    seed: int

    @property
    def key(self) -> str:
        """What tells it from every other cell; a change of any setting changes it."""
        return json.dumps(asdict(self), sort_keys=True)


def run_cell(cell: Cell, data: str, device: str) -> dict:
    """Train and test; the line for the results file."""
    task, method = cell.task, cell.method
    stream = Stream.load(task.dataset, data, cell.regime, cell.seed)
    channels, *size = stream.shape
    model = build(
        task.model,
        num_classes=stream.num_classes,
        in_channels=channels,
        image_size=tuple(size),
        seed=cell.seed,
    )
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), task.learning_rate, momentum=task.momentum, weight_decay=task.weight_decay
    )
    instance_filter = make_filter(
        method.filter, method.keep, in_channels=channels, image_size=tuple(size), seed=cell.seed,
        **dict(method.filter_options),
    )  # fmt: skip
    methods = {
        "instance_filter": instance_filter,
        "error_maps": _error_maps(model, method, cell.seed),
        "quantization": _quantization(model, method),
    }
    iterations = round(task.iterations * method.iteration_share)
    batches = stream.batches(task.batch_size, iterations)
    if device != "cpu":
        batches = ((x_BCHW.to(device), y_B.to(device)) for x_BCHW, y_B in batches)
    start = time.perf_counter()
    curve, total = [], TrainStats()
    for number, part in enumerate(_parts(iterations), 1):
        done = total.samples_seen / (iterations * task.batch_size)
        for group in optimizer.param_groups:
            group["lr"] = task.learning_rate * 0.1 ** sum(done >= drop for drop in task.drops)
        stats = train(model, islice(batches, part), optimizer=optimizer, **methods)
        total += stats
        curve.append(_point(stats, total, instance_filter))
        if number > CURVE_POINTS - LAST_POINTS:  # testing at every point would cost more than short runs do
            curve[-1]["accuracy"] = _accuracy(model, stream, device)
    return _line(cell, total, curve, iterations, time.perf_counter() - start)


def _error_maps(model: nn.Module, method: Method, seed: int):
    if method.error_keep == 1:
        return None
    from fedge.training.error_map import ErrorMapPruner

    return ErrorMapPruner(model, keep=method.error_keep, seed=seed, **dict(method.error_options))


def _quantization(model: nn.Module, method: Method):
    if not method.quantised:
        return None
    from fedge.training.quantization import Quantization

    return Quantization(model)


def _parts(iterations: int) -> Iterator[int]:
    """The iterations cut into the points of the curve."""
    ends = [round(iterations * point / CURVE_POINTS) for point in range(CURVE_POINTS + 1)]
    return (end - start for start, end in pairwise(ends) if end > start)


def _point(stats: TrainStats, total: TrainStats, instance_filter: InstanceFilter | None) -> dict:
    point = {
        "seen": total.samples_seen,
        "kept_share": stats.kept_share,
        "macs_done": total.macs_done,
        "loss": stats.loss,
    }
    threshold = getattr(instance_filter, "threshold", None)
    return point if threshold is None else point | {"threshold": threshold}


def _accuracy(model: nn.Module, stream: Stream, device: str) -> float:
    return evaluate(model, ((x.to(device), y.to(device)) for x, y in stream.test_batches())).accuracy


def _line(cell: Cell, total: TrainStats, curve: list[dict], iterations: int, time_s: float) -> dict:
    """`saved` is against dense training over all of the task's iterations, so `smb` is judged by the same yardstick."""
    dense = total.macs_dense / iterations * cell.task.iterations
    tests = [point["accuracy"] for point in curve if "accuracy" in point]
    return {
        "key": cell.key,
        **asdict(cell),
        "accuracy": curve[-1]["accuracy"],
        "late_accuracy": mean(tests),
        "saved": 1 - total.macs_done / dense,
        "bit_operations_saved": 1 - total.bit_operations / (1024 * dense),
        "kept_share": total.kept_share,
        "looked_share": total.samples_looked_at / total.samples_seen,
        "filter_share": total.macs_filter / dense,
        "time_s": round(time_s, 1),
        "curve": curve,
    }


def random_keep(keep: float) -> Method:
    return Method(name=f"random {keep:g}", filter="random", keep=keep)


def fewer_iterations(keep: float) -> Method:
    return Method(name=f"smb {keep:g}", iteration_share=keep)


def early(keep: float, *, error_keep: float = 1.0, **options: float | str) -> Method:
    name = " ".join([f"early {keep:g}", *(f"{key}={value}" for key, value in options.items())])
    if error_keep < 1:
        name += f" + error maps {error_keep:g}"
    return Method(
        name=name, filter="early", keep=keep, filter_options=tuple(options.items()), error_keep=error_keep
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="smoke")
    parser.add_argument("--data", default=str(default_root()), help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    cells = PRESETS[arguments.preset]()
    for number, cell in enumerate(cells, 1):
        done = arguments.out.read_text().splitlines() if arguments.out.exists() else []
        if any(json.loads(line)["key"] == cell.key for line in done):
            continue
        line = run_cell(cell, arguments.data, arguments.device)
        with arguments.out.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print(
            f"[{number}/{len(cells)}] {cell.task.model} {cell.regime} {cell.method.name} seed {cell.seed}: "
            f"accuracy {line['accuracy']:.4f}, saved {line['saved']:.4f}, kept {line['kept_share']:.3f}, "
            f"{line['time_s']:.0f} s",
            flush=True,
        )


def _smoke() -> list[Cell]:
    task = replace(LENET, iterations=300)
    return [Cell(task, "plain", method, 0) for method in (Method(), random_keep(0.2), early(0.2))]


def _regimes(seeds: Iterable[int]) -> list[Cell]:
    """Equal total MACs: the filter's own cost is 1.3 % of dense training, which the coin may spend on instances."""
    task = replace(LENET, iterations=1000)
    methods = (early(0.2), random_keep(0.213))
    order = ("long_tail", "plain", "drift", "noise", "runs")
    return [Cell(task, regime, method, seed) for seed in seeds for regime in order for method in methods]


def _fewer_iterations() -> list[Cell]:
    task = replace(LENET, iterations=1000)
    order = ("long_tail", "plain", "drift", "noise", "runs")
    return [Cell(task, regime, fewer_iterations(0.213), seed) for seed in range(3) for regime in order]


def _variants() -> list[Cell]:
    """One seed each: the paper's controller, less exploring, and distrust of the highest losses."""
    task = replace(LENET, iterations=1000)
    cells = [Cell(task, regime, early(0.2, explore=0.25), 0) for regime in ("long_tail", "drift")]
    cells += [Cell(task, "noise", early(0.2, distrust=0.1), 0)]
    return [*cells, Cell(task, "plain", early(0.2, controller="paper"), 0)]


def _lenet() -> list[Cell]:
    methods = (early(0.19), random_keep(0.2), fewer_iterations(0.2), Method())
    return [Cell(LENET, "plain", method, seed) for seed in range(3) for method in methods]


def _cifar_narrow() -> list[Cell]:
    """Far from convergence: 600 of the 64k iterations, on ResNet-8."""
    task = replace(CIFAR, model="resnet8", iterations=600)
    methods = (early(0.25, network="slim_lenet", downsample=1), random_keep(0.27))
    return [Cell(task, "plain", method, seed) for seed in range(3) for method in methods]


def _cpu() -> list[Cell]:
    """Ordered so that a run that is cut short has compared everything with few seeds, not little with many."""
    full_length = _lenet()
    return [
        *_regimes(range(2)), *full_length[:1], *_regimes([2]), *_variants(), *_cifar_narrow(), *_fewer_iterations(),
        *full_length,
    ]  # fmt: skip


def _full() -> list[Cell]:
    methods = (
        Method(),
        early(0.3, downsample=1),
        random_keep(0.36),
        early(0.3, error_keep=0.5, downsample=1),
    )
    models = ("resnet110", "resnet74", "vgg16")
    return [
        Cell(replace(CIFAR, model=model), "plain", method, seed)
        for model in models
        for seed in range(3)
        for method in methods
    ]


PRESETS = {
    "smoke": _smoke,
    "cpu": _cpu,
    "full": _full,
}

if __name__ == "__main__":
    main()
