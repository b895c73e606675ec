"""uci_har.npz as people make it."""

from pathlib import Path

import numpy as np
import pytest

from fedge.data.datasets import load_dataset
from fedge.errors import UserError

N = 10_299


def archive(root: Path, **change: np.ndarray) -> Path:
    rng = np.random.default_rng(1)
    person_N = np.sort(np.arange(N) % 30) + 1
    arrays = {"x": np.zeros((N, 9, 128), np.float32), "y": rng.integers(0, 6, N), "subject": person_N}
    arrays["x"][:, 0] = rng.standard_normal((N, 1))
    root.mkdir(exist_ok=True)
    np.savez(root / "uci_har.npz", **arrays | change)
    return root


def test_a_sound_archive_is_read_with_the_official_people_first(tmp_path):
    """A made-up or rebuilt archive of the right shapes could not be used."""
    dataset = load_dataset("har", archive(tmp_path))
    assert dataset.x.shape == (N, 9, 1, 128) and dataset.overlap == 1 and dataset.ordered
    assert (
        dataset.subject[0] == 1 and dataset.subject[-1] == 24 and (np.diff(dataset.subject) != 0).sum() == 29
    )


def nan() -> np.ndarray:
    x = np.zeros((N, 9, 128), np.float32)
    x[10_000, 8, 127] = np.nan
    return x


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"y": np.arange(N) % 6 + 1}, "labels 1 to 6 found, 0 to 5 wanted: subtract 1"),
        ({"y": np.arange(N) % 6 - 1}, "labels -1 to 4 found"),
        ({"y": (np.arange(N) % 6).astype(np.float32)}, "y is float32"),
        ({"y": np.arange(N) % 5}, "no row of class 5 found"),
        ({"y": np.eye(6)[np.arange(N) % 6]}, "y is float64"),
        ({"x": np.zeros((N, 9, 128))}, "x is float64"),
        ({"x": np.zeros((N, 128, 9), np.float32)}, "wanted"),
        ({"x": np.zeros((N, 9 * 128), np.float32)}, r"wanted \[10299, 9, 128\]"),
        ({"x": nan()}, r"nan in row 10000 \(channel 8"),
        ({"x": np.zeros((N - 1, 9, 128), np.float32)}, "x has 10,298, y has 10,299, subject has 10,299 rows"),
        ({"subject": np.arange(N) % 30}, "30 people, 0 to 29; wanted 30, numbered 1 to 30"),
        ({"subject": np.arange(N) % 21 + 1}, "21 people"),
        (
            {"x": np.zeros((0, 9, 128), np.float32), "y": np.arange(0), "subject": np.arange(0)},
            "holds 0 people; wanted 30",
        ),
        ({"subject": np.array(["p"] * N, object)}, "not the expected archive"),
    ],
)
def test_what_is_wrong_with_an_archive_is_told(change, line, tmp_path):
    """A label out of range would end in an IndexError during preparation, a nan in a nan factory model."""
    with pytest.raises(UserError, match=line) as caught:
        load_dataset("har", archive(tmp_path, **change))
    assert "har" in str(caught.value) and "\n" not in str(caught.value)
