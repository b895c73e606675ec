"""A planted copy of prepared data."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedge.audit.canaries import Planted, plant
from fedge.data.dataset import DataSet
from fedge.data.dividing.parts import ClientRows
from fedge.data.shard import write_shards


def _folder(folder: Path, x: np.ndarray, classes: int = 10) -> Path:
    """Two clients' shards: the second has most training rows."""
    y = np.arange(len(x)) % classes
    data = DataSet("made up", x, y, classes, len(x), (0.4,) * x.shape[1], (0.3,) * x.shape[1])
    parts = (
        [np.arange(0, 8), np.arange(8, 10), np.arange(10, 12)],
        [np.arange(12, len(x) - 4), np.arange(len(x) - 4, len(x) - 2), np.arange(len(x) - 2, len(x))],
    )
    write_shards(data, [ClientRows(*each) for each in parts], folder / "shards")
    return folder


@pytest.fixture
def planted(tmp_path: Path) -> Callable[..., Planted]:
    """Canaries in data of this kind, drawn by `seed`; the folder is tmp_path/data."""

    def make(seed: int = 0, dtype: str = "float32", shape: tuple[int, int, int] = (1, 16, 16)) -> Planted:
        chance = np.random.default_rng(17)
        x = chance.random((90, *shape), np.float32)
        x = (255 * x).astype(np.uint8) if dtype == "uint8" else x
        folder = _folder(tmp_path / "data", x)
        assert json.loads((folder / "shards" / "meta.json").read_text())["clients"] == 2
        return plant(folder, np.random.default_rng(seed))

    return make
