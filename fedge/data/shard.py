"""One client's private rows on disk, opened in constant time and read batch by batch.

A folder of shards holds K clients, numbered from 0:

    x.npy        [R, C, H, W] uint8 or float32, client by client, each in the order train | validation | test
    y.npy        [R] int64, [R, K] uint8 or float32, by the data's task (fedge.data.targets)
    offsets.npy  [K, 4] int64: where a client's train, validation and test rows begin, and its end
    meta.json    dataset, task, num_classes, shape, mean, std, target_mean, target_std, clients

A client's rows are consecutive and read from the file at their offset, so that memory does not grow with the number
of clients. Only rows that are some client's are in the folder, and a `Shard` holds no array of anybody else's.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap

from fedge.catalog.facts import Task
from fedge.data.blocks import BLOCK_BYTES, gathered, release, row_bytes
from fedge.data.checks import check_row_numbers, check_rows
from fedge.data.dataset import DataSet
from fedge.data.dividing.parts import ClientRows
from fedge.data.targets import DTYPES, row_shape, target_statistics
from fedge.data.transform import Transform, transformed, works_anywhere
from fedge.errors import UserError

SPLITS = ("train", "validation", "test")
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class _Rows:
    """Consecutive rows of one file of a folder of shards; opened where they are read and held by nobody."""

    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]  # of one row
    first_byte: int
    count: int

    def open(self) -> np.ndarray:
        """The rows, memory-mapped: [count, *shape], read-only."""
        shape = (self.count, *self.shape)
        if not self.count:
            return np.empty(shape, self.dtype)
        return np.memmap(self.file, self.dtype, "r", offset=self.first_byte, shape=shape)

    @classmethod
    def cut(cls, stored: np.memmap, start: int, end: int) -> "_Rows":
        """Rows `start` to `end` of a whole file as numpy has opened it."""
        shape = stored.shape[1:]
        first_byte = stored.offset + start * stored.dtype.itemsize * math.prod(shape)
        return cls(Path(str(stored.filename)), stored.dtype, shape, first_byte, end - start)

    def rounded(self, count: int) -> "_Rows":
        """The first of them, as many as a multiple of `count`."""
        return replace(self, count=self.count // count * count)


@dataclass(frozen=True, eq=False)
class _Held:
    """Rows in memory."""

    array: np.ndarray

    @property
    def count(self) -> int:
        return len(self.array)

    def open(self) -> np.ndarray:
        """The rows themselves."""
        return self.array

    def rounded(self, count: int) -> "_Held":
        """The first of them, as many as a multiple of `count`."""
        return _Held(self.array[: self.count // count * count])


@dataclass(frozen=True, eq=False)
class Shard:
    """The rows of one client, and nobody else's. `shape` is [C, H, W]; `mean` and `std` per channel normalise.

    task: what y says of a row: its class, its K labels, or K numbers, which `target_mean` and `target_std` standardise.
    What is read without naming a part is the *training* part: `x` and `y`, `len(shard)`, `shard[i]`, a loop over it,
    a `torch.utils.data.DataLoader(shard)`. The validation and test rows are had by name: `batches("test", 256)`.
    """

    client: int
    num_classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _parts: dict[str, tuple[_Rows | _Held, _Rows | _Held]] = field(repr=False)
    task: Task = "classes"
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()

    @classmethod
    def open(cls, directory: Path | str, client: int) -> "Shard":
        """The shard of `client` in `directory`. UserError: no folder, damaged, or no such client."""
        directory = Path(directory)
        try:
            meta = json.loads((directory / "meta.json").read_text())
            x, y, offsets = (np.load(directory / f"{name}.npy", "r") for name in ("x", "y", "offsets"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{directory} is no readable folder of shards ({error}): prepare the data anew"
            ) from error
        if not 0 <= client < len(offsets):
            raise UserError(f"{directory} holds clients 0 to {len(offsets) - 1}; asked for client {client}")
        ends = [int(offset) for offset in offsets[client]]
        return cls(
            client=client,
            num_classes=meta["num_classes"],
            shape=tuple(meta["shape"]),
            mean=tuple(meta["mean"]),
            std=tuple(meta["std"]),
            _parts={
                split: (_Rows.cut(x, start, end), _Rows.cut(y, start, end))
                for split, (start, end) in zip(SPLITS, pairwise(ends), strict=True)
            },
            task=meta.get("task", "classes"),
            target_mean=tuple(meta.get("target_mean", ())),
            target_std=tuple(meta.get("target_std", ())),
        )

    def in_multiples_of(self, count: int) -> "Shard":
        """The same client's shard with the last rows of each part left out, so that each has a multiple of `count`."""
        parts = {split: (x.rounded(count), y.rounded(count)) for split, (x, y) in self._parts.items()}
        return replace(self, _parts=parts)

    @cached_property
    def x(self) -> np.ndarray:
        """The training rows as they are stored, [N, C, H, W] uint8 or float32: a copy in memory."""
        return self.arrays("train")[0]

    @cached_property
    def y(self) -> np.ndarray:
        """Their targets as they are stored, [N] or [N, K]: a copy in memory."""
        return self.arrays("train")[1]

    def __len__(self) -> int:
        """Number of training rows."""
        return self.count("train")

    def __getitem__(self, index: int) -> Batch:
        """One training row: x_CHW float32, normalised, and its target, standardised where it is a number."""
        x_CHW = self.normalised(scaled(torch.from_numpy(self.x[index][None])))[0]
        return x_CHW, self._standardised(torch.as_tensor(self.y[index]))

    def __iter__(self) -> Iterator[Batch]:
        """The training rows one by one, in stored order."""
        return (self[index] for index in range(len(self)))

    def count(self, split: str) -> int:
        """Number of rows of `split` (train, validation or test); may be 0."""
        return self._part(split)[0].count

    def labels(self, split: str) -> np.ndarray:
        """The targets of `split` [N] or [N, K], in stored order and as they are stored."""
        return np.array(self._part(split)[1].open())

    @cached_property
    def own_classes(self) -> tuple[int, ...]:
        """The classes that there are training samples of, in rising order; for task `classes`."""
        return tuple(sorted(set(self.labels("train").tolist())))

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """A copy of the rows of `split` as they are stored: x [N, C, H, W] uint8 or float32, y."""
        x, y = self._part(split)
        return np.array(x.open()), np.array(y.open())

    def rows(self, split: str, which_N: np.ndarray) -> np.ndarray:
        """Copies of these rows of `split` as they are stored: x [N, C, H, W] uint8 or float32."""
        return np.array(self._part(split)[0].open()[which_N])

    def with_training(self, x: np.ndarray, y: np.ndarray) -> "Shard":
        """The same client with these training rows in memory in place of its own: x and y as rows are stored."""
        return replace(self, _parts=self._parts | {"train": (_Held(x), _Held(y))})

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        seed: int | None = None,
        transform: Transform | None = None,
        order: torch.memory_format = torch.contiguous_format,
        device: torch.device | None = None,
        drawn: Callable[[np.ndarray], None] | None = None,
    ) -> Iterator[Batch]:
        """Yield (x_BCHW float32 normalised, y_B) once over `split`; the last batch may be short.

        seed None: stored order. A seed gives the permutation, and what `transform` draws, a function of batches that
        are not normalised yet (fedge.data.transform). y as it is stored, numbers standardised. No row, no batch.
        `order`: of x in memory. `device`: where the rows go as they are stored, to be normalised there; a transform of
        one's own sees them before. Rows are read from the file batch by batch. `drawn`: is told the rows of each batch.
        """
        if transform is not None and seed is None:
            raise UserError("transform needs a seed: give batches() one")
        x_NCHW, y_N = (rows.open() for rows in self._part(split))
        generator = torch.Generator().manual_seed(seed or 0)
        count, most = len(y_N), max(1, BLOCK_BYTES // row_bytes(x_NCHW))
        unreleased = 0
        order_N = torch.arange(count) if seed is None else torch.randperm(count, generator=generator)
        for rows_B in order_N.split(batch_size) if count else ():
            x_BCHW, y_B = (torch.from_numpy(stored[rows_B.numpy()]) for stored in (x_NCHW, y_N))
            x_BCHW = scaled(x_BCHW.to(device if works_anywhere(transform) else None))
            if transform is not None:
                x_BCHW = transformed(transform, x_BCHW, generator)
            if (unreleased := unreleased + len(rows_B)) > most:
                release(x_NCHW)
                unreleased = 0
            if drawn is not None:
                drawn(rows_B.numpy())
            yield self.normalised(x_BCHW.to(device), order), self._standardised(y_B.to(device))

    def normalised(
        self, x_BCHW: torch.Tensor, order: torch.memory_format = torch.contiguous_format
    ) -> torch.Tensor:
        """(x - mean) / std as float32, of pictures in 0..1."""
        mean_C11, std_C11 = (
            torch.tensor(values).to(x_BCHW.device)[:, None, None] for values in (self.mean, self.std)
        )
        normalised_BCHW = torch.empty(x_BCHW.shape, memory_format=order, device=x_BCHW.device)
        return torch.sub(x_BCHW, mean_C11, out=normalised_BCHW).div_(std_C11)

    def _standardised(self, y: torch.Tensor) -> torch.Tensor:
        """(y - mean) / std of numbers [..., K]; classes and labels as they are."""
        if self.task != "numbers":
            return y
        mean_K, std_K = (torch.tensor(values).to(y.device) for values in (self.target_mean, self.target_std))
        return (y - mean_K) / std_K

    def _part(self, split: str) -> tuple[_Rows | _Held, _Rows | _Held]:
        if split not in SPLITS:
            raise UserError(f"split is '{split}'; there are {', '.join(SPLITS)}")
        return self._parts[split]


def scaled(x_BCHW: torch.Tensor) -> torch.Tensor:
    """Float32, pictures as 0..1."""
    return x_BCHW.float().div_(255) if x_BCHW.dtype == torch.uint8 else x_BCHW


def data_tie(shard: Shard) -> float:
    """0..1 from the targets of a shard's training rows, 0 without any: what availability may be tied to.

    The mean class over the highest, the share of labels that are 1, or where the mean number lies among all, taken for
    normal.
    """
    y = shard.labels("train")
    if not len(y):
        return 0.0
    if shard.task == "classes":
        return float(y.mean()) / max(1, shard.num_classes - 1)
    if shard.task == "labels":
        return float(y.mean())
    deviations_K = (y.mean(0, dtype=np.float64) - shard.target_mean) / shard.target_std
    return 0.5 * (1 + math.erf(float(deviations_K.mean()) / math.sqrt(2)))


def training_rows(directory: Path) -> list[int]:
    """How many training rows each client of a folder of shards has."""
    offsets = np.load(directory / "offsets.npy", "r")
    return [int(end - start) for start, end in offsets[:, :2]]


def write_shards(
    dataset: DataSet,
    clients: Sequence[ClientRows],
    directory: Path | str,
    *,
    targets_of: np.ndarray | None = None,
) -> None:
    """Write the clients' rows as a folder of shards, numbered from 0, replacing what `directory` held.

    targets_of: the rows whose numbers say how targets are standardised; None, or none: the official training rows.
    UserError: x, y or the row numbers are not what they must be (fedge.data.checks). Classes without a row are fine.
    """
    check_rows(
        dataset.x,
        dataset.y,
        num_classes=dataset.num_classes,
        task=dataset.task,
        who=f"data set '{dataset.name}'",
    )
    for client, own in enumerate(clients):
        check_row_numbers(np.concatenate(own.parts), len(dataset), who=f"client {client}")
    offsets_K4 = _offsets([[len(part) for part in rows.parts] for rows in clients])
    target_mean, target_std = _targets(dataset, targets_of)
    meta = {
        "dataset": dataset.name,
        "task": dataset.task,
        "num_classes": dataset.num_classes,
        "shape": dataset.x.shape[1:],
        "mean": dataset.mean,
        "std": dataset.std,
        "target_mean": target_mean,
        "target_std": target_std,
        "clients": len(clients),
    }
    rows = np.concatenate([part for own in clients for part in own.parts] or [np.empty(0, np.int64)])
    pieces = ((x, dataset.y[rows[start : start + len(x)]]) for start, x in gathered(dataset.x, rows))
    _write(Path(directory), meta, dataset.x.dtype, offsets_K4, pieces)


def _targets(dataset: DataSet, rows: np.ndarray | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """How numbers are standardised; nothing for another task."""
    if dataset.task != "numbers":
        return (), ()
    told = rows is not None and len(rows)
    return target_statistics(dataset.y[rows] if told else dataset.y[: dataset.train_count])


def export_shard(directory: Path | str, client: int, out: Path | str) -> None:
    """Write one client's own rows, and nothing else, as a folder of one shard: its number there is 0.

    This is what a real node is given: `Shard.open(out, 0)` reads it.
    """
    shard = Shard.open(directory, client)
    meta = json.loads((Path(directory) / "meta.json").read_text()) | {"clients": 1}
    parts = [shard.arrays(split) for split in SPLITS]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    offsets_K4 = np.cumsum([[0, *(len(labels) for _, labels in parts)]], axis=1, dtype=np.int64)
    _write(Path(out), meta, x.dtype, offsets_K4, [(x, y)])


def _offsets(sizes: Sequence[Sequence[int]]) -> np.ndarray:
    """[K, 4]: where the parts of K clients begin, one after another, and each client's end; sizes: of its parts."""
    sizes_K3 = np.array(sizes, np.int64).reshape(-1, 3)
    ends_K3 = np.cumsum(sizes_K3.ravel()).reshape(-1, 3)
    return np.concatenate([ends_K3[:, :1] - sizes_K3[:, :1], ends_K3], axis=1)


def rewrite_shards(
    source: Path | str, out: Path | str, clients: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]]
) -> None:
    """Write a folder of shards of the kind of `source` that holds other rows: per client its three parts' x and y."""
    source = Path(source)
    meta = json.loads((source / "meta.json").read_text()) | {"clients": len(clients)}
    dtype = np.load(source / "x.npy", "r").dtype
    _write(
        Path(out),
        meta,
        dtype,
        _offsets([[len(y) for _, y in parts] for parts in clients]),
        (part for parts in clients for part in parts),
    )


def _write(
    directory: Path,
    meta: dict[str, Any],
    dtype: np.dtype,
    offsets_K4: np.ndarray,
    pieces: Iterable[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Fill a folder beside `directory`, then move it there whole."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-"))
    try:
        total = int(offsets_K4[-1, 3])
        x = open_memmap(partial / "x.npy", "w+", dtype, (total, *meta["shape"]))
        y = open_memmap(
            partial / "y.npy",
            "w+",
            DTYPES[meta["task"]],
            (total, *row_shape(meta["task"], meta["num_classes"])),
        )
        start = 0
        for x_rows, y_rows in pieces:
            end = start + len(y_rows)
            x[start:end], y[start:end] = x_rows, y_rows
            release(x)
            start = end
        x.flush()
        y.flush()
        np.save(partial / "offsets.npy", offsets_K4)
        (partial / "meta.json").write_text(json.dumps(meta))
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
