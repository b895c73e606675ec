"""Whole data sets; those that need files are skipped, saying so, where FEDGE_DATA does not hold them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedge.catalog.datasets import DATASETS
from fedge.data.dataset import channel_statistics
from fedge.data.datasets import load_dataset
from fedge.errors import UserError
from fedge.paths import data_root


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "cifar100", "har"])
def test_a_loaded_set_is_what_its_facts_say(name):
    """`fedge list` and the scenario checks would promise shapes and sizes that a run does not find."""
    facts = DATASETS[name]
    if facts.files and not (Path(os.environ.get("FEDGE_DATA", "-")) / facts.files).exists():
        pytest.skip(f"FEDGE_DATA holds no {facts.files}")
    dataset = load_dataset(name, data_root(None))
    assert dataset.x.shape == (facts.size, *facts.shape) and len(dataset) == facts.size
    assert dataset.num_classes == facts.num_classes and dataset.train_count == facts.train_count
    assert set(np.unique(dataset.y)) == set(range(facts.num_classes)) and dataset.y.dtype == np.int64
    assert len(dataset.mean) == len(dataset.std) == facts.shape[0]
    assert (dataset.subject is None) == (facts.people is None)
    if facts.people:  # the official training split of HAR is by people
        train, test = dataset.subject[: facts.train_count], dataset.subject[facts.train_count :]
        assert not set(train) & set(test) and len(set(train) | set(test)) == facts.people


def test_a_digit_pixel_covers_two_by_two():
    """LeNet would not fit, or the digits would be something else than scikit-learn's."""
    x = load_dataset("digits", "unused").x
    assert np.array_equal(x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]) and x.max() == 1.0


def test_statistics_of_uint8_equal_those_of_floats():
    """Pictures would be normalised by the wrong mean or deviation."""
    x = np.random.default_rng(0).integers(0, 256, (50, 2, 5, 5), dtype=np.uint8)
    for exact, plain in zip(
        channel_statistics(x), channel_statistics(x.astype(np.float64) / 255), strict=True
    ):
        assert exact == pytest.approx(plain, rel=1e-9)
    assert channel_statistics(np.full((3, 1, 2, 2), 7, np.uint8))[1] == (1.0,)  # never divided by 0


def test_facts_and_partition_names_need_no_torch():
    """The coordinator's process would import torch to check a scenario."""
    code = "import sys, fedge.catalog.datasets, fedge.data.partition; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_gets_the_nearest_one():
    """A typing error would cost the user a search."""
    with pytest.raises(UserError, match="did you mean 'cifar10'"):
        load_dataset("cifar-10", "unused")


@pytest.mark.parametrize("name", ["har", "mnist", "cifar10"])
def test_a_missing_file_is_one_line_with_the_folder_and_leaves_nothing(name, tmp_path, monkeypatch):
    """The user would see torchvision's traceback, or find half a download."""
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    with pytest.raises(UserError) as caught:
        load_dataset(name, tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert ":)" not in str(caught.value) and "parent" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def _no_network(*_: object, **__: object) -> None:
    raise OSError("no network in this test")


@pytest.mark.parametrize(
    ("name", "file"), [("mnist", "MNIST/raw/train-images-idx3-ubyte"), ("har", "uci_har.npz")]
)
def test_a_damaged_file_is_one_line(name, file, tmp_path):
    """A broken download would end in a traceback from the parser."""
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not it")
    with pytest.raises(UserError, match=name) as caught:
        load_dataset(name, tmp_path)
    assert "\n" not in str(caught.value)
