"""One training run of the accuracy benchmark: what is trained, on what, with which method, and what came of it.

`Cell` is (task, regime, method, seed) and nothing else decides the outcome; `run_cell` trains, tests and returns one
line for the results file.

At a constant learning rate the last iterate is noisy, so the tests at the last five of forty points are averaged as
well (`late_accuracy`). And a recipe that a practitioner would take is measured beside it at a quarter more time: at
`cooled_from` of the iterations the whole run (network, optimiser, filter) is copied, and the copy sees the same
mini-batches at a tenth of the learning rate (`cooled_accuracy`).
"""

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from statistics import mean

import torch
from torch import Tensor

from benchmarks.eif_emp.streams import Stream
from benchmarks.measure.results import Row
from fedge.models import build
from fedge.training.error_map import ErrorMapPruner
from fedge.training.instance_filter.filters import InstanceFilter, make_filter
from fedge.training.loop import evaluate, train
from fedge.training.quantization import Quantization
from fedge.training.stats import TrainStats

CURVE_POINTS = 40
LAST_POINTS = 5
"""Points at the end of a run at which it is tested; testing at every point would cost more than a short run."""


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
    cooled_from: float = 1.0
    """Share of the iterations after which a copy goes on at a tenth of the learning rate; 1: no copy."""


@dataclass(frozen=True)
class Cell:
    """One training run."""

    task: Task
    regime: str
    method: Method
    seed: int


class Run:
    """Network, optimiser and methods of a cell, trained part by part; `curve` and `total` say what happened."""

    def __init__(self, cell: Cell, stream: Stream, device: str) -> None:
        task, method = cell.task, cell.method
        channels, *size = stream.shape
        shape = {"in_channels": channels, "image_size": tuple(size), "seed": cell.seed}
        model = build(task.model, num_classes=stream.num_classes, **shape)
        self.cell, self.stream, self.device = cell, stream, device
        self.model = model.to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            model.parameters(), task.learning_rate, momentum=task.momentum, weight_decay=task.weight_decay
        )
        self.filter = make_filter(method.filter, method.keep, **shape, **dict(method.filter_options))
        self.learning_rate = task.learning_rate
        self.curve: list[Row] = []
        self.total = TrainStats()
        self._attach()

    def _attach(self) -> None:
        """The methods that hold on to the network."""
        method = self.cell.method
        options = dict(method.error_options) | ({"keep": method.error_keep} if method.error_keep < 1 else {})
        self.error_maps = ErrorMapPruner(self.model, seed=self.cell.seed, **options) if options else None
        self.quantization = Quantization(self.model) if method.quantised else None

    def cooled(self) -> "Run":
        """A copy at a tenth of the learning rate."""
        other = copy.copy(self)
        other.model, other.optimizer, other.filter = copy.deepcopy((self.model, self.optimizer, self.filter))
        other.learning_rate, other.curve = self.learning_rate / 10, []
        other._attach()
        return other

    def train(self, batches: list[tuple[Tensor, Tensor]], *, done: float, test: bool) -> None:
        """One point of the curve; `done` is the share of the run before it."""
        drops = sum(done >= drop for drop in self.cell.task.drops)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * 0.1**drops
        stats = train(
            self.model, batches, optimizer=self.optimizer, instance_filter=self.filter,
            error_maps=self.error_maps, quantization=self.quantization,
        )  # fmt: skip
        self.total += stats
        self.curve.append(_point(stats, self.total, self.filter))
        if test:
            self.curve[-1]["accuracy"] = self._accuracy()

    def _accuracy(self) -> float:
        batches = ((x.to(self.device), y.to(self.device)) for x, y in self.stream.test_batches())
        return evaluate(self.model, batches).accuracy

    @property
    def tests(self) -> list[float]:
        """Accuracies at the last points."""
        return [point["accuracy"] for point in self.curve if "accuracy" in point]


def run_cell(cell: Cell, data: str, device: str) -> Row:
    """Train and test; the line for the results file."""
    task = cell.task
    stream = Stream.load(task.dataset, data, cell.regime, cell.seed)
    iterations = round(task.iterations * cell.method.iteration_share)
    batches = stream.batches(task.batch_size, iterations)
    start = time.perf_counter()
    runs = [Run(cell, stream, device)]
    for number, (done, part) in enumerate(_parts(iterations)):
        if len(runs) == 1 and done >= task.cooled_from:
            runs.append(runs[0].cooled())
        # a list, so that both runs see it
        part_batches = [(x_BCHW.to(device), y_B.to(device)) for x_BCHW, y_B in islice(batches, part)]
        for run in runs:
            run.train(part_batches, done=done, test=number >= CURVE_POINTS - LAST_POINTS)
    return _line(cell, runs, iterations, time.perf_counter() - start)


def _parts(iterations: int) -> Iterator[tuple[float, int]]:
    """The points of the curve: the share done before each, and its iterations."""
    ends = [round(iterations * point / CURVE_POINTS) for point in range(CURVE_POINTS + 1)]
    return ((start / iterations, end - start) for start, end in pairwise(ends))


def _point(stats: TrainStats, total: TrainStats, instance_filter: InstanceFilter | None) -> Row:
    point = {
        "seen": total.samples_seen,
        "kept_share": stats.kept_share,
        "macs_done": total.macs_done,
        "loss": stats.loss,
    }
    threshold = getattr(instance_filter, "threshold", None)
    return point if threshold is None else point | {"threshold": threshold}


def _line(cell: Cell, runs: list[Run], iterations: int, time_s: float) -> Row:
    """`saved` is against dense training over all of the task's iterations: one yardstick, for `smb` as well."""
    total = runs[0].total
    dense = total.macs_dense / iterations * cell.task.iterations
    line = {
        **asdict(cell),
        "accuracy": runs[0].tests[-1],
        "late_accuracy": mean(runs[0].tests),
        "saved": 1 - total.macs_done / dense,
        "bit_operations_saved": 1 - total.bit_operations / (1024 * dense),
        "kept_share": total.kept_share,
        "looked_share": total.samples_looked_at / total.samples_seen,
        "filter_share": total.macs_filter / dense,
        "time_s": round(time_s, 1),
        "curve": runs[0].curve,
    }
    for run in runs[1:]:
        line |= {"cooled_accuracy": run.tests[-1], "cooled_late_accuracy": mean(run.tests)}
    return line
