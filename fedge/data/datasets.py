"""Load a whole data set into arrays, official training rows first.

Legend: N rows, C channels, H height, W width. Pictures stay uint8 (a quarter of the memory) until a batch
is made; `mean` and `std` are per channel, of the training rows on the 0..1 scale, and normalise a batch.
"""

import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedge.catalog.datasets import DatasetFacts, dataset_facts
from fedge.data.cifar100_classes import COARSE_OF_FINE
from fedge.errors import UserError

_DOWNLOAD_TIMEOUT_S = 30.0

# The people whose windows are the official training split (UCI HAR, README: 70 % of the volunteers).
_HAR_TRAIN_PEOPLE = (1, 3, 5, 6, 7, 8, 11, 14, 15, 16, 17, 19, 21, 22, 23, 25, 26, 27, 28, 29, 30)


@dataclass(frozen=True, eq=False)
class DataSet:
    """`x` [N, C, H, W] uint8 (0..255) or float32; `y` [N] int64; `subject` [N] who recorded a row; `coarse`
    [N] CIFAR-100's superclass; None where there is none. The first `train_count` rows are the official
    training split."""

    name: str
    x: np.ndarray
    y: np.ndarray
    num_classes: int
    train_count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    subject: np.ndarray | None = None
    coarse: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)


def load_dataset(name: str, root: Path | str) -> DataSet:
    """The data set from its files under `root`, fetched first where they are absent and the network allows.

    `digits` needs neither. UserError: no such set; files missing and not to be had; files unreadable.
    """
    facts = dataset_facts(name)
    loaders: dict[str, Callable[[DatasetFacts, Path], DataSet]] = {"digits": _digits, "har": _har}
    return loaders.get(name, _pictures)(facts, Path(root).expanduser())


def _make(facts: DatasetFacts, x_NCHW: np.ndarray, y_N: np.ndarray, **more: np.ndarray | None) -> DataSet:
    mean, std = channel_statistics(x_NCHW[: facts.train_count])
    y_N = y_N.astype(np.int64)
    return DataSet(facts.name, x_NCHW, y_N, facts.num_classes, facts.train_count, mean, std, **more)


def channel_statistics(x_NCHW: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel; uint8 counts as 0..1. Exact for uint8: from its histogram."""
    means, stds = [], []
    for x_NHW in np.moveaxis(x_NCHW, 1, 0):
        if x_NHW.dtype == np.uint8:
            share = np.bincount(x_NHW.ravel(), minlength=256) / x_NHW.size
            levels = np.arange(256) / 255
            mean = float(share @ levels)
            std = float(np.sqrt(share @ (levels - mean) ** 2))
        else:
            mean, std = float(x_NHW.mean(dtype=np.float64)), float(x_NHW.std(dtype=np.float64))
        means.append(mean)
        stds.append(std or 1.0)  # a constant channel is centred and left at that
    return tuple(means), tuple(stds)


def _digits(facts: DatasetFacts, root: Path) -> DataSet:
    """8 x 8 digits of 0..16 ink, scaled to 0..1, each pixel 2 x 2. No official split: the first 80 %."""
    from sklearn.datasets import load_digits

    x_NHW, y_N = load_digits(return_X_y=True)
    x_NHW = (x_NHW.reshape(-1, 8, 8) / 16).astype(np.float32)
    return _make(facts, x_NHW.repeat(2, axis=1).repeat(2, axis=2)[:, None], y_N)


def _har(facts: DatasetFacts, root: Path) -> DataSet:
    """Nine signals per window (body and total acceleration, gyroscope; x, y, z), from `uci_har.npz`."""
    path = root / facts.files
    if not path.is_file():
        raise UserError(
            f"data set 'har' needs {facts.files}, looked in {root}: put it there (arrays x float32"
            " [N, 9, 128], y 0..5, subject 1..30), or name its folder with --set data.root=… or FEDGE_DATA"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x_NCT, y_N, subject_N = arrays["x"], arrays["y"], arrays["subject"]
    except Exception as error:  # whatever a broken archive makes numpy raise
        raise UserError(
            f"{path} is not the expected archive of x, y, subject ({error}): fetch it anew"
        ) from error
    shapes = (x_NCT.shape, y_N.shape, subject_N.shape)
    if shapes != ((facts.size, 9, 128), (facts.size,), (facts.size,)):
        raise UserError(f"{path} holds x, y, subject of shapes {shapes}; expected x [{facts.size}, 9, 128]")
    # The file goes person by person; the official training split is 21 of the 30 people.
    order = np.argsort(~np.isin(subject_N, _HAR_TRAIN_PEOPLE), kind="stable")
    x_NCHW = x_NCT[order].astype(np.float32, copy=False)[:, :, None, :]
    return _make(facts, x_NCHW, y_N[order], subject=subject_N[order].astype(np.int64))


def _pictures(facts: DatasetFacts, root: Path) -> DataSet:
    """MNIST and CIFAR through torchvision's own readers (which check CIFAR's md5 sums before unpickling)."""
    from fedge.data.torchvision_compat import import_torchvision_datasets

    classes = import_torchvision_datasets()
    reader = getattr(
        classes,
        {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}[
            facts.name
        ],
    )
    if not (root / facts.files).is_dir():
        _download(reader, facts, root)
    try:
        parts = [reader(str(root), train=train, download=False) for train in (True, False)]
        x_NCHW = np.concatenate([_channels_first(np.asarray(part.data)) for part in parts])
        y_N = np.concatenate([np.asarray(part.targets) for part in parts])
    except Exception as error:  # torchvision raises RuntimeError, ValueError, OSError, AssertionError …
        raise UserError(
            f"data set '{facts.name}' in {root / facts.files} is incomplete or damaged ({error}):"
            " remove that folder and put it there anew"
        ) from error
    coarse_N = np.asarray(COARSE_OF_FINE, dtype=np.int64)[y_N] if facts.name == "cifar100" else None
    return _make(facts, x_NCHW, y_N, coarse=coarse_N)


def _channels_first(x: np.ndarray) -> np.ndarray:
    return x[:, None] if x.ndim == 3 else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def _download(reader: type, facts: DatasetFacts, root: Path) -> None:
    """Fetch into a temporary folder and move it in whole, so that a failure leaves nothing behind."""
    timeout_s = socket.getdefaulttimeout()
    top = Path(facts.files).parts[0]
    try:
        root.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)  # torchvision sets none: a dead network would hang
        with tempfile.TemporaryDirectory(dir=root) as temporary:
            reader(temporary, train=True, download=True)
            shutil.move(Path(temporary) / top, root / top)
    except Exception as error:
        raise UserError(
            f"data set '{facts.name}' needs the folder {facts.files}, looked in {root}, and it could not be"
            f" downloaded ({_first_line(error)}): put it there, or name the folder that holds {top} with"
            " --set data.root=… or FEDGE_DATA; dataset = 'digits' needs no files"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout_s)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(": ")
