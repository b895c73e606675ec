"""MNIST's and CIFAR's files as people put them: packed, misnamed, cut short, mixed up."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fedge.catalog.datasets import DATASETS
from fedge.data.datasets import load_dataset
from fedge.data.known.idx import read_idx
from fedge.errors import UserError


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def put(
    root: Path,
    *,
    folder: str = "MNIST",
    train: int = 60_000,
    test: int = 10_000,
    first: int = 0,
    classes: int = 10,
):
    """A made-up set in MNIST's files; pictures are 28 x 28 of their label."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for part, rows in (("train", train), ("t10k", test)):
        label_N = np.arange(rows) % classes + first
        pictures = np.broadcast_to(label_N[:, None, None], (rows, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(pictures))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(label_N))
    return raw


def line(root: Path, name: str = "mnist") -> str:
    """What loading is refused with: one line, with a reason, and no option that fedge has not."""
    with pytest.raises(UserError) as caught:
        load_dataset(name, root)
    text = str(caught.value)
    assert name in text and "\n" not in text and "()" not in text and "download=" not in text
    return text


@pytest.mark.parametrize("packed", [(), ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"), None])
def test_packed_files_are_read_as_they_are(packed, tmp_path):
    """Files as they come from the web would be refused, or read as other pictures."""
    raw = put(tmp_path, folder="FashionMNIST")
    for path in sorted(raw.iterdir()):
        if packed is None or path.name in packed:
            (raw / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
            path.unlink()
    dataset = load_dataset("fashion_mnist", tmp_path)
    assert dataset.x.shape == (70_000, 1, 28, 28) and dataset.x.dtype == np.uint8
    assert np.array_equal(dataset.x[:, 0, 5, 5], dataset.y) and dataset.y[60_001] == 1


def test_what_is_no_file_of_the_format_is_told_with_what_it_is(tmp_path):
    """The reason would be empty, as of torchvision's assertion, or the files be called incomplete."""
    raw = put(tmp_path, train=20, test=10)
    labels, pictures = raw / "train-labels-idx1-ubyte", raw / "train-images-idx3-ubyte"
    whole = pictures.read_bytes()
    for content, reason in [
        (b"\n<!DOCTYPE html><p>404", "a saved web page"),
        (b"", "it is empty"),
        (b"PK\x03\x04rest", "a zip archive: unpack it"),
        (labels.read_bytes(), "1-dimensional data: are pictures and labels mixed up?"),
        (whole[:-5], r"15,691 bytes and should, for 20 x 28 x 28, hold 15,696"),
        (whole + b"more", "should, for 20 x 28 x 28, hold"),
        (gzip.compress(whole)[:-20], "cannot be read"),
        (b"\x93NUMPY", "begins with the bytes 93 4e 55"),
    ]:
        pictures.write_bytes(content)
        assert reason in line(tmp_path)


def test_a_packed_file_under_the_plain_name_is_read(tmp_path):
    """Browsers drop the .gz of a name, not the packing."""
    path = tmp_path / "labels"
    path.write_bytes(gzip.compress(idx(np.arange(7))))
    assert read_idx(tmp_path, "labels", dimensions=1, who="mine").tolist() == list(range(7))


def test_a_name_that_is_nearly_right_is_to_be_renamed(tmp_path):
    """People would be told to fetch what they have."""
    raw = put(tmp_path, train=20, test=10)
    (raw / "t10k-labels-idx1-ubyte").rename(raw / "t10k-labels.idx1-ubyte")
    assert "rename t10k-labels.idx1-ubyte" in line(tmp_path)
    (raw / "t10k-labels.idx1-ubyte").unlink()
    assert "holds no t10k-labels-idx1-ubyte, nor t10k-labels-idx1-ubyte.gz (there are t10k-images" in line(
        tmp_path
    )


def test_parts_of_unlike_numbers_are_told_with_both(tmp_path):
    """70,000 pictures would be paired with 20,000 labels, of other pictures."""
    raw = put(tmp_path)
    train = (raw / "train-images-idx3-ubyte").read_bytes()
    (raw / "train-labels-idx1-ubyte").write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())
    assert "the training part has 60,000 pictures and 10,000 labels; wanted 60,000 of both" in line(tmp_path)
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(60_000) % 10))
    (raw / "t10k-images-idx3-ubyte").write_bytes(train)
    assert "the test part has 60,000 pictures and 10,000 labels; wanted 10,000 of both" in line(tmp_path)


def test_training_and_test_files_the_wrong_way_round_are_told(tmp_path):
    """The official split would be another one than published."""
    put(tmp_path, train=10_000, test=60_000)
    assert "10,000 training pictures found, 60,000 wanted" in line(tmp_path)


def test_another_set_under_the_name_is_told(tmp_path):
    """600 pictures, letters, or pictures of another size would pass for MNIST."""
    put(tmp_path / "few", train=500, test=100)
    assert "600 rows found, 70,000 wanted" in line(tmp_path / "few")
    put(tmp_path / "letters", train=124_800 // 8, test=20_800 // 8, first=1, classes=26)
    assert "labels 1 to 26 found, 0 to 9 wanted" in line(tmp_path / "letters")
    raw = put(tmp_path / "large", train=20, test=10)
    for part, rows in (("train", 20), ("t10k", 10)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(np.zeros((rows, 32, 32))))
    assert "[30, 1, 32, 32]; wanted [N, 1, 28, 28]" in line(tmp_path / "large")
    put(tmp_path / "nine", classes=9)
    assert "no row of class 9 found" in line(tmp_path / "nine")


def test_cifars_missing_or_changed_file_is_named(tmp_path):
    """torchvision advises download=True, which no scenario has."""
    folder = tmp_path / DATASETS["cifar10"].files
    folder.mkdir()
    assert "data_batch_1 is missing" in line(tmp_path, "cifar10")
    for name in [f"data_batch_{part}" for part in range(1, 6)] + ["test_batch", "batches.meta"]:
        (folder / name).write_bytes(b"<html>")
    assert "data_batch_1 is not the published file: its md5 sum differs" in line(tmp_path, "cifar10")


def test_an_archive_beside_the_folder_is_to_be_unpacked(tmp_path):
    """People without a network would be told to fetch what they have."""
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"packed")
    assert "unpack" in line(tmp_path, "cifar100")


def test_files_one_folder_too_high_are_told(tmp_path):
    """The download would land beside them, in a folder of the same name within."""
    (tmp_path / "MNIST").mkdir()
    assert "MNIST/raw" in line(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["MNIST"]
