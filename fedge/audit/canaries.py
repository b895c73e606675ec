"""Canaries: secrets planted among one client's training rows, in the audit's own copy of the prepared data.

    token    random bytes, the first values of a row
    patch    a square of random pixels in another row's picture
    labels   the labels of the rows that follow, in their order

They are drawn at random for this audit alone, so that what holds one has had the client's rows in view. Where values
are floats, a byte b stands for b/255 of the way from the least to the greatest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedge.data.digests import write_digests
from fedge.errors import UserError

Codes = NDArray[np.int64]

_TOKEN = 32  # values
_PATCH = 8  # pixels a side
_LABEL_BITS = 160.0  # that the planted labels tell together, where there are rows enough
_LEAST_ROWS = 3


@dataclass(frozen=True, eq=False)
class Run:
    """Planted values that lie one after another. codes: [n] bytes from 1, or classes from 0, of `choices` equally
    likely ones. stored: [n] as the file holds them. scales: name -> [n], how else a program may hold them."""

    canary: str
    codes: Codes
    choices: int
    stored: NDArray[Any]
    scales: Mapping[str, NDArray[np.float64]]

    def part(self, start: int, count: int) -> "Run":
        """`count` of them from `start` on."""
        cut = slice(start, start + count)
        scales = {name: values[cut] for name, values in self.scales.items()}
        return Run(self.canary, self.codes[cut], self.choices, self.stored[cut], scales)


@dataclass(frozen=True, eq=False)
class Planted:
    """Whose rows hold the canaries, and what they are."""

    client: int
    runs: tuple[Run, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the canaries, in the order of planting."""
        return tuple(dict.fromkeys(run.canary for run in self.runs))


def plant(folder: Path, chance: np.random.Generator) -> Planted:
    """Plant the canaries in the copy `folder` of prepared data, among the training rows of the client that has most.

    UserError where no client has rows for them.
    """
    meta = json.loads((folder / "shards" / "meta.json").read_text(encoding="utf-8"))
    x, y = (np.load(folder / "shards" / f"{name}.npy", mmap_mode="r+") for name in ("x", "y"))
    offsets = np.load(folder / "shards" / "offsets.npy")
    rows = offsets[:, 1] - offsets[:, 0]
    client, first = int(rows.argmax()), int(offsets[rows.argmax(), 0])
    if rows[client] < _LEAST_ROWS:
        raise UserError(
            f"no client has {_LEAST_ROWS} training rows, so that no canary can be planted: have fewer clients"
        )
    picture = _Scale.of(x, meta["mean"], meta["std"])
    runs = [_token(x, first, picture, chance), *_patch(x, first + 1, picture, chance)]
    if labels := _labels(y[first + 2 : offsets[client, 1]], meta, chance):
        runs.append(labels)
    x.flush()
    y.flush()
    write_digests(folder)
    return Planted(client, tuple(runs))


@dataclass(frozen=True)
class _Scale:
    """What a byte stands for in a file: of uint8 itself, of floats a share of their range."""

    dtype: np.dtype[Any]
    least: float
    most: float
    mean: float  # of the first channel, on the scale that `Shard` normalises on
    std: float

    @classmethod
    def of(cls, values: NDArray[Any], mean: list[float], std: list[float]) -> "_Scale":
        some = values[:: max(1, len(values) // 1000)]
        least, most = (0.0, 255.0) if values.dtype == np.uint8 else (float(some.min()), float(some.max()))
        return cls(values.dtype, least, most, (mean or [0.0])[0], (std or [1.0])[0])

    def stored(self, codes: Codes) -> NDArray[Any]:
        return (self.least + (self.most - self.least) * codes / 255).astype(self.dtype)

    def run(self, canary: str, codes: Codes) -> Run:
        stored, share = self.stored(codes), codes / 255
        seen = share if self.dtype == np.uint8 else stored.astype(np.float64)
        scales = {
            "0..255": codes.astype(np.float64),
            "0..1": share,
            "as stored": stored.astype(np.float64),
            "normalised": (seen - self.mean) / self.std,
        }
        return Run(canary, codes, 255, stored, scales)


def _token(x: NDArray[Any], row: int, scale: _Scale, chance: np.random.Generator) -> Run:
    """Random bytes from the first value of the row on."""
    codes = chance.integers(1, 256, min(_TOKEN, x[row].size))
    flat = x[row].reshape(-1)
    flat[: len(codes)] = scale.stored(codes)
    x[row] = flat.reshape(x.shape[1:])
    return scale.run("token", codes)


def _patch(x: NDArray[Any], row: int, scale: _Scale, chance: np.random.Generator) -> list[Run]:
    """A square in the middle of all channels; its lines channel by channel and, of several channels, pixel by pixel."""
    channels, height, width = x.shape[1:]
    high, wide = min(_PATCH, height), min(_PATCH, width)
    top, left = (height - high) // 2, (width - wide) // 2
    codes_CHW = chance.integers(1, 256, (channels, high, wide))
    x[row, :, top : top + high, left : left + wide] = scale.stored(codes_CHW)
    lines = [line for channel in codes_CHW for line in channel]
    if channels > 1:
        lines += [line.reshape(-1) for line in codes_CHW.transpose(1, 2, 0)]
    return [scale.run("patch", line) for line in lines]


def _labels(y: NDArray[Any], meta: Mapping[str, Any], chance: np.random.Generator) -> Run | None:
    """The targets of these rows, as many as tell enough; None where there is no room for half of it."""
    task = meta["task"]
    choices = {"classes": meta["num_classes"], "labels": 2, "numbers": 255}[task]
    per_row = 1 if y.ndim == 1 else y.shape[1]
    count = min(int(np.ceil(_LABEL_BITS / np.log2(choices) / per_row)), len(y))
    if choices < 2 or count * per_row * np.log2(choices) < _LABEL_BITS / 2:
        return None
    shape = y[:count].shape
    if task == "numbers":
        scale = _Scale.of(y, meta["target_mean"], meta["target_std"])
        codes = chance.integers(1, 256, shape)
        y[:count] = scale.stored(codes)
        return scale.run("labels", codes.reshape(-1))
    codes = chance.integers(0, choices, shape)
    y[:count] = codes
    stored = y[:count].reshape(-1).copy()
    return Run(
        "labels", codes.reshape(-1), choices, stored, {"classes": codes.reshape(-1).astype(np.float64)}
    )
