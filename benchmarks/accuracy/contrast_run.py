"""One cell of the contrast benchmark: an encoder learns from a stream without labels, and few labels probe it.

    stream    every picture once; a class for `stc` pictures, then another one by lot. stc 1: shuffled
    factory   a tenth of the training rows, with labels, train the encoder that arms with start = "factory" begin from
    arm       a rule of the buffer, how often stored samples are scored, and how many updates a segment gets
    probe     the head alone on so many labels a class, of the stream's rows; right answers on test rows

Arms see the same stream. `macs` are the training steps', `macs_score` those of looking. Shapes: N rows, B a segment.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from fedge.data.augment import crop_flip
from fedge.data.dataset import DataSet
from fedge.data.datasets import load_dataset
from fedge.models import build
from fedge.seeding import derive_seed
from fedge.training.contrast.buffer import Buffer
from fedge.training.contrast.nt_xent import NtXent, partners
from fedge.training.contrast.probe import features_of, few_of_each, fit_head
from fedge.training.contrast.projection import in_place_of_head, linear_head, made_projection
from fedge.training.contrast.scores import contrast_scores, embedded, mirrored
from fedge.training.contrast.views import jittered, views_for
from fedge.training.loop import train
from fedge.training.macs import count_forward, evaluating
from fedge.training.stats import TrainStats
from fedge.training.update.decay import Decay, cosine

NETWORKS = {"cifar10": "resnet8", "har": "har_cnn", "digits": "lenet"}
RATES = {"scratch": 0.1, "factory": 0.03}
FACTORY_EPOCHS, FACTORY_RATE = 10, 0.05
TEMPERATURE, MOMENTUM = 0.5, 0.9


@dataclass(frozen=True)
class Cell:
    """One row. updates: mini-batches per three segments (3: one each; 5: as many MACs as scoring every time takes)."""

    dataset: str
    start: str
    stc: int
    arm: str
    seed: int
    segments: int
    buffer: int


@dataclass(frozen=True)
class Arm:
    """rule: "none" trains nothing. updates: in three segments."""

    rule: str
    lazy: int = 1
    updates: int = 3


ARMS = {
    "untrained": Arm("none"),
    "fifo": Arm("fifo"),
    "random": Arm("random"),
    "reservoir": Arm("reservoir"),
    "minred": Arm("minred"),
    "contrast": Arm("contrast"),
    "contrast_lazy4": Arm("contrast", lazy=4),
    "random_more": Arm("random", updates=5),
    "reservoir_more": Arm("reservoir", updates=5),
}


@dataclass
class Learner:
    """An arm on its stream. `looked` samples were scored, `classes` is how many the buffer held, segment by segment."""

    data: "Rows"
    cell: Cell
    arm: Arm
    model: nn.Module
    classes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buffer = Buffer(self.arm.rule, self.cell.buffer, lazy=self.arm.lazy)
        self.rows_M = np.empty(0, np.int64)
        self.generator = torch.Generator().manual_seed(derive_seed(self.cell.seed, "views"))
        self.views = views_for(self.data.shape)

    def learn(self) -> TrainStats:
        """One pass through the stream."""
        name, head = linear_head(self.model, self.data.shape)
        projection = made_projection(head.in_features, derive_seed(self.cell.seed, "projection"))
        count = self.cell.segments * self.arm.updates // 3
        with in_place_of_head(self.model, name, projection):
            optimizer = torch.optim.SGD(self.model.parameters(), RATES[self.cell.start], momentum=MOMENTUM)
            batches = Decay(optimizer, cosine()).over(self._batches(), count=count, start=0.0, end=1.0)
            return train(self.model, batches, optimizer=optimizer, task=NtXent(TEMPERATURE))

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for segment, new_B in enumerate(stream(self.data, self.cell)):
            self._keep(new_B)
            self.classes.append(len(np.unique(self.data.y[self.rows_M])))
            updates = (segment + 1) * self.arm.updates // 3 - segment * self.arm.updates // 3
            for _ in range(updates):
                x_NCHW = self.data.raw(self.rows_M)
                views = [self.views(x_NCHW, self.generator) for _ in range(2)]
                yield self.data.normalised(torch.cat(views)), partners(2 * len(x_NCHW))

    def _keep(self, new_B: np.ndarray) -> None:
        candidates_K = np.concatenate([self.rows_M, new_B])

        def look(due_L: Tensor) -> Tensor:
            x_LCHW = self.data.normalised(self.data.raw(candidates_K[due_L.numpy()]))
            if self.arm.rule == "minred":
                return embedded(self.model, x_LCHW)
            return contrast_scores(self.model, x_LCHW, self._weak)

        kept_M = self.buffer.offer(len(new_B), look, self.generator)
        self.rows_M = candidates_K[kept_M.numpy()]

    def _weak(self, x_LCHW: Tensor) -> Tensor:
        return jittered(x_LCHW, self.generator) if self.data.shape[1] == 1 else mirrored(x_LCHW)


class Rows:
    """A data set: `factory` and `streamed` training rows, at most `tests` test rows."""

    def __init__(self, dataset: str, root: str, tests: int) -> None:
        self._data: DataSet = load_dataset(dataset, root)
        self.y = self._data.y
        order_N = np.random.default_rng(derive_seed(0, "contrast rows")).permutation(self._data.train_count)
        self.factory, self.streamed = np.split(order_N, [self._data.train_count // 10])
        self.tests = np.arange(self._data.train_count, len(self._data))[:tests]

    @property
    def shape(self) -> tuple[int, int, int]:
        """[C, H, W]."""
        channels, height, width = self._data.x.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> int:
        return self._data.num_classes

    def raw(self, rows_B: np.ndarray) -> Tensor:
        """Pictures 0..1, windows as they were measured."""
        x_BCHW = torch.from_numpy(self._data.x[rows_B])
        return x_BCHW.float() / 255 if x_BCHW.dtype == torch.uint8 else x_BCHW

    def normalised(self, x_BCHW: Tensor) -> Tensor:
        """Channels last in memory."""
        mean_C11, std_C11 = (
            torch.tensor(values)[:, None, None] for values in (self._data.mean, self._data.std)
        )
        return ((x_BCHW - mean_C11) / std_C11).contiguous(memory_format=torch.channels_last)


def stream(data: Rows, cell: Cell) -> Iterator[np.ndarray]:
    """`segments` times `buffer` rows of the stream, each once; fewer where the rows run out."""
    generator = np.random.default_rng(derive_seed(cell.seed, "stream", cell.stc))
    row_N = generator.permutation(data.streamed)
    if cell.stc > 1:
        row_N = _in_runs(row_N, data.y[row_N], cell.stc, generator)
    wanted = row_N[: cell.segments * cell.buffer]
    for start in range(0, len(wanted) // cell.buffer * cell.buffer, cell.buffer):
        yield wanted[start : start + cell.buffer]


def _in_runs(row_N: np.ndarray, y_N: np.ndarray, stc: int, generator: np.random.Generator) -> np.ndarray:
    """The rows, a class for `stc` of them and then another: as long as any other class has some left."""
    left = {label: list(row_N[y_N == label]) for label in np.unique(y_N).tolist()}
    runs: list[list[int]] = []
    last = None
    while others := [label for label, rows in left.items() if rows and label != last]:
        last = int(generator.choice(others))
        runs.append(left[last][:stc])
        left[last] = left[last][stc:]
    return np.concatenate(runs)


def run_cell(cell: Cell, data: Rows, labels: tuple[int, ...]) -> dict[str, object]:
    """What the arm learnt, measured, and what it cost."""
    arm = ARMS[cell.arm]
    model = started(cell, data)
    learner, stats = Learner(data, cell, arm if arm.rule != "none" else Arm("fifo"), model), TrainStats()
    if arm.rule != "none":
        stats = learner.learn()
    forward = count_forward(model, data.shape).forward
    looks = learner.buffer.looked * (2 if arm.rule == "contrast" else 1)
    return {
        **{f"probe_{count}": accuracy for count, accuracy in probed(model, data, cell.seed, labels).items()},
        "classes": round(float(np.mean(learner.classes)), 2) if learner.classes else None,
        "updates": stats.steps,
        "loss": round(stats.loss, 4) if stats.steps else None,
        "macs": stats.macs_done,
        "macs_score": looks * forward,
        "scored": learner.buffer.looked,
    }


def started(cell: Cell, data: Rows) -> nn.Module:
    """The network that the arm begins with."""
    model = build(
        NETWORKS[cell.dataset],
        num_classes=data.classes,
        in_channels=data.shape[0],
        image_size=data.shape[1:],
        seed=cell.seed,
    ).to(memory_format=torch.channels_last)
    if cell.start == "factory":
        model.load_state_dict(_factory(cell.dataset, cell.seed, data, model))
    return model


_FACTORY: dict[tuple[str, int], dict[str, Tensor]] = {}


def _factory(dataset: str, seed: int, data: Rows, model: nn.Module) -> dict[str, Tensor]:
    """Weights after supervised training on the factory's rows; once a seed."""
    if (dataset, seed) not in _FACTORY:
        generator = torch.Generator().manual_seed(derive_seed(seed, "factory"))
        optimizer = torch.optim.SGD(model.parameters(), FACTORY_RATE, momentum=MOMENTUM, weight_decay=5e-4)
        size = 64
        count = len(data.factory) // size

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            order_N = data.factory[torch.randperm(len(data.factory), generator=generator).numpy()]
            for start in range(0, count * size, size):
                rows = order_N[start : start + size]
                x_BCHW = data.raw(rows)
                x_BCHW = x_BCHW if data.shape[1] == 1 else crop_flip(x_BCHW, generator)
                yield data.normalised(x_BCHW), torch.from_numpy(data.y[rows]).long()

        decay = Decay(optimizer, cosine())
        for epoch in range(FACTORY_EPOCHS):
            share = epoch / FACTORY_EPOCHS, (epoch + 1) / FACTORY_EPOCHS
            train(
                model, decay.over(batches(), count=count, start=share[0], end=share[1]), optimizer=optimizer
            )
        _FACTORY[dataset, seed] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return _FACTORY[dataset, seed]


def probed(model: nn.Module, data: Rows, seed: int, labels: tuple[int, ...]) -> dict[int, float]:
    """Accuracy, %, on the test rows by the head on so many labels a class."""
    _, head = linear_head(model, data.shape)
    row_N = np.random.default_rng(derive_seed(seed, "probe")).permutation(data.streamed)
    row_N = row_N[few_of_each(torch.from_numpy(data.y[row_N]), max(labels)).numpy()]
    y_N = torch.from_numpy(data.y[row_N]).long()
    test_y = torch.from_numpy(data.y[data.tests]).long()
    with evaluating(model):
        known, asked = (
            torch.cat([features_of(model, head, data.normalised(data.raw(some))) for some in _blocks(rows)])
            for rows in (row_N, data.tests)
        )
    accuracy = {}
    for count in labels:
        few = few_of_each(y_N, count)
        fit_head(head, known[few], y_N[few])
        with torch.no_grad():
            accuracy[count] = round(100 * float((head(asked).argmax(1) == test_y).float().mean()), 2)
    return accuracy


def _blocks(rows: np.ndarray, size: int = 500) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


@cache
def rows_of(dataset: str, root: str, tests: int) -> Rows:
    """Loaded once."""
    return Rows(dataset, root, tests)
