"""One client's private rows on disk, opened in constant time and read batch by batch.

A folder of shards holds K clients, numbered from 0:

    x.npy        [R, C, H, W] uint8 or float32, client by client, each in the order train | validation | test
    y.npy        [R] int64
    offsets.npy  [K, 4] int64: where a client's train, validation and test rows begin, and its end
    meta.json    dataset, num_classes, shape, mean, std, clients

Arrays are memory-mapped and a client's shard is a view of consecutive rows, so that memory does not grow with
the number of clients. Only rows that are some client's are in the folder.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.lib.format import open_memmap

from fedge.data.augment import crop_flip
from fedge.data.datasets import DataSet
from fedge.data.partition import ClientRows
from fedge.errors import UserError

SPLITS = ("train", "validation", "test")
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Shard:
    """The rows of one client. `shape` is [C, H, W]; `mean` and `std` per channel normalise (uint8: 0..1)."""

    client: int
    num_classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    x: np.ndarray
    y: np.ndarray
    offsets: tuple[int, int, int, int]

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
        return cls(
            client=client,
            num_classes=meta["num_classes"],
            shape=tuple(meta["shape"]),
            mean=tuple(meta["mean"]),
            std=tuple(meta["std"]),
            x=x,
            y=y,
            offsets=tuple(int(offset) for offset in offsets[client]),
        )

    def count(self, split: str) -> int:
        """Number of rows of `split` (train, validation or test); may be 0."""
        start, end = self._range(split)
        return end - start

    def labels(self, split: str) -> np.ndarray:
        """The labels of `split` [N] int64, in stored order."""
        return np.asarray(self.y[slice(*self._range(split))])

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: Literal["crop_flip"] | None = None,
        order: torch.memory_format = torch.contiguous_format,
    ) -> Iterator[Batch]:
        """Yield (x_BCHW float32 normalised, y_B int64) once over `split`; the last batch may be short.

        seed None: stored order. A seed gives the permutation, and what `augment` draws. No row, no batch.
        `order`: of x in memory.
        """
        if augment and seed is None:
            raise UserError("augment needs a seed: give batches() one")
        start, end = self._range(split)
        generator = torch.Generator().manual_seed(seed or 0)
        order_N = torch.arange(start, end)
        if seed is not None:
            order_N = order_N[torch.randperm(end - start, generator=generator)]
        mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        for rows_B in order_N.split(batch_size) if len(order_N) else ():
            x_BCHW = torch.from_numpy(self.x[rows_B.numpy()])
            if augment:
                x_BCHW = crop_flip(x_BCHW, generator)
            if x_BCHW.dtype == torch.uint8:
                x_BCHW = x_BCHW.float().div_(255)
            normalised_BCHW = torch.empty(x_BCHW.shape, memory_format=order)
            torch.sub(x_BCHW, mean_C11, out=normalised_BCHW).div_(std_C11)
            yield normalised_BCHW, torch.from_numpy(self.y[rows_B.numpy()])

    def _range(self, split: str) -> tuple[int, int]:
        if split not in SPLITS:
            raise UserError(f"split is '{split}'; there are {', '.join(SPLITS)}")
        part = SPLITS.index(split)
        return self.offsets[part], self.offsets[part + 1]


def write_shards(dataset: DataSet, clients: Sequence[ClientRows], directory: Path | str) -> None:
    """Write the clients' rows as a folder of shards, numbered from 0, replacing what `directory` held."""
    sizes_K3 = np.array([[len(part) for part in rows.parts] for rows in clients], np.int64).reshape(-1, 3)
    ends_K3 = np.cumsum(sizes_K3.ravel()).reshape(-1, 3)
    offsets_K4 = np.concatenate([ends_K3[:, :1] - sizes_K3[:, :1], ends_K3], axis=1)
    meta = {
        "dataset": dataset.name,
        "num_classes": dataset.num_classes,
        "shape": dataset.x.shape[1:],
        "mean": dataset.mean,
        "std": dataset.std,
        "clients": len(clients),
    }
    rows_per_client = (np.concatenate(rows.parts) for rows in clients)
    pieces = ((dataset.x[rows], dataset.y[rows]) for rows in rows_per_client)
    _write(Path(directory), meta, dataset.x.dtype, offsets_K4, pieces)


def export_shard(directory: Path | str, client: int, out: Path | str) -> None:
    """Write one client's own rows, and nothing else, as a folder of one shard: its number there is 0.

    This is what a real node is given: `Shard.open(out, 0)` reads it.
    """
    shard = Shard.open(directory, client)
    meta = json.loads((Path(directory) / "meta.json").read_text()) | {"clients": 1}
    offsets_K4 = np.array([shard.offsets], np.int64) - shard.offsets[0]
    own = slice(shard.offsets[0], shard.offsets[3])
    _write(Path(out), meta, shard.x.dtype, offsets_K4, [(shard.x[own], shard.y[own])])


def _write(
    directory: Path,
    meta: dict,
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
        y = open_memmap(partial / "y.npy", "w+", np.int64, (total,))
        for (start, _, _, end), (x_rows, y_rows) in zip(offsets_K4, pieces, strict=True):
            x[start:end], y[start:end] = x_rows, y_rows
        x.flush()
        y.flush()
        np.save(partial / "offsets.npy", offsets_K4)
        (partial / "meta.json").write_text(json.dumps(meta))
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
