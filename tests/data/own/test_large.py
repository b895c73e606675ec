"""Data that do not fit into memory: a folder of 20 GB, which is a sparse file and takes no such room on the disk."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedge.data import blocks as blocks_module
from fedge.data.blocks import blocks, gathered
from fedge.data.dataset import channel_statistics
from fedge.data.dividing.repeats import equal_groups

GB = 10**9


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("most", [1, 700, 1 << 30])
def test_blocks_hold_every_row_once(tmp_path: Path, dtype: type, most: int) -> None:
    """Breaks if a row at a block's border is lost or seen twice, or if pages that were handed back come back empty."""
    x = np.random.default_rng(0).integers(0, 256, (50, 2, 3, 5)).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", "r")
    assert np.array_equal(np.concatenate([np.array(rows) for _, rows in blocks(mapped, most)]), x)
    rows = np.random.default_rng(1).permutation(50)[:33]
    assert np.array_equal(np.concatenate([part for _, part in gathered(mapped, rows, most)]), x[rows])
    assert next(start for start, _ in blocks(mapped, most)) == 0 and not list(gathered(mapped, rows[:0]))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_statistics_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    """Breaks if large data are normalised otherwise than small ones."""
    x = (
        np.random.default_rng(0).normal(100, 20, (300, 3, 4, 4)) + np.arange(300)[:, None, None, None] / 9
    ).astype(dtype)
    scaled = x / (255 if dtype is np.uint8 else 1)
    monkeypatch.setattr("fedge.data.dataset.blocks", lambda array, *_: blocks(array, 1000))
    mean, std = channel_statistics(x)
    assert mean == pytest.approx(scaled.mean((0, 2, 3), dtype=np.float64), rel=1e-12)
    assert std == pytest.approx(scaled.std((0, 2, 3), dtype=np.float64), rel=1e-12)


def test_repeats_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if equal rows that lie far apart are not known as such."""
    monkeypatch.setattr(blocks_module, "_MOST_ROWS", 2)
    monkeypatch.setattr("fedge.data.dividing.repeats._BLOCK_BYTES", 30)
    x = np.random.default_rng(0).integers(0, 256, (40, 1, 3, 3), dtype=np.uint8)
    x[31] = x[2]
    x[39] = x[2]
    x[8] = x[7]
    group_N = equal_groups(x)
    assert group_N is not None
    assert group_N[[2, 31, 39]].tolist() == [2, 2, 2] and group_N[[7, 8]].tolist() == [7, 7]
    assert len(set(group_N.tolist())) == 37


PREPARE = """
import resource, sys, json
from fedge.prepare import prepare
from fedge.scenario.load import load_scenario
prepared = prepare(load_scenario(sys.argv[1]))
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, prepared.notices]))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 20 GB are read five times and written once
def test_twenty_gigabytes_are_prepared_in_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if any step of preparation takes the whole array into memory, as a copy or as pages that it keeps."""
    if shutil.disk_usage(tmp_path).free < 30 * GB:
        pytest.skip("needs 30 GB of disk for what is prepared")
    shape, rows = (3, 224, 224), 20 * GB // (3 * 224 * 224)
    sparse_folder(tmp_path / "large", shape, rows)
    (tmp_path / "own.toml").write_text(SCENARIO, encoding="utf-8")
    monkeypatch.setenv("FEDGE_CACHE", str(tmp_path / "cache"))
    try:
        command = [sys.executable, "-c", PREPARE, str(tmp_path / "own.toml")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peak_bytes, notices = json.loads(done.stdout)
        assert peak_bytes < 2 * GB
        assert any("repeats itself" in line for line in notices)
    finally:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)


SCENARIO = """
name = "large"
[data]
dataset = "large"
[model]
name = "squeezenet"
factory = { epochs = 0 }
[[fleet]]
device = "raspberry-pi-4"
count = 20
"""


def sparse_folder(folder: Path, shape: tuple[int, int, int], rows: int) -> None:
    """A data folder whose pictures are black but for the first ten: the file is a hole, and takes no room."""
    from numpy.lib.format import open_memmap

    from fedge.data.own.folder import write_facts

    folder.mkdir()
    x = open_memmap(folder / "x.npy", "w+", np.uint8, (rows, *shape))
    x[:10] = np.random.default_rng(0).integers(0, 256, (10, *shape), dtype=np.uint8)
    x.flush()
    np.save(folder / "y.npy", np.arange(rows) % 10)
    write_facts(folder, title="black", task="classes", classes=[str(label) for label in range(10)])
