"""Load a whole data set into arrays, official training rows first.

Legend: N rows, C channels, H height, W width. Pictures stay uint8 (a quarter of the memory) until a batch
is made; `mean` and `std` are per channel, of the training rows on the 0..1 scale, and normalise a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedge.catalog.datasets import DatasetFacts, dataset_facts
from fedge.data.checks import check_rows, check_size
from fedge.data.cifar100_classes import COARSE_OF_FINE
from fedge.data.pictures import first_line, read_pictures
from fedge.errors import UserError

# The people whose windows are the official training split (UCI HAR, README: 70 % of the volunteers).
_HAR_TRAIN_PEOPLE = (1, 3, 5, 6, 7, 8, 11, 14, 15, 16, 17, 19, 21, 22, 23, 25, 26, 27, 28, 29, 30)


@dataclass(frozen=True, eq=False)
class DataSet:
    """`x` [N, C, H, W] uint8 (0..255) or float32; `y` [N] int64; `subject` [N] who recorded a row; `coarse`
    [N] CIFAR-100's superclass; None where there is none. The first `train_count` rows are the official
    training split. `ordered` and `stride` as in `DatasetFacts`: an owner's rows stand in the order of recording, and
    a row begins so many samples after the owner's row before it."""

    name: str
    x: np.ndarray
    y: np.ndarray
    num_classes: int
    train_count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    subject: np.ndarray | None = None
    coarse: np.ndarray | None = None
    ordered: bool = False
    stride: int | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def overlap(self) -> int:
        """How many of its owner's next rows share samples with a row: windows of 128, one every 64, make it 1."""
        return 0 if self.stride is None else -(-self.x.shape[-1] // self.stride) - 1


def load_dataset(name: str, root: Path | str) -> DataSet:
    """The data set from its files under `root`, fetched first where they are absent and the network allows.

    `digits` needs neither. UserError: no such set; files missing and not to be had; files unreadable, or not what is
    known of the set (dtypes, shapes, counts, classes, finite numbers).
    """
    facts = dataset_facts(name)
    loaders: dict[str, Callable[[DatasetFacts, Path], DataSet]] = {"digits": _digits, "har": _har}
    return loaders.get(name, _pictures)(facts, Path(root).expanduser())


def _make(
    facts: DatasetFacts, x_NCHW: np.ndarray, y_N: np.ndarray, *, who: str, subject_N: np.ndarray | None = None
) -> DataSet:
    """Check what was read against the facts. `who`: the set and where it lies, as a line for a person names it."""
    shape, num_classes = facts.shape, facts.num_classes
    check_rows(x_NCHW, y_N, num_classes=num_classes, shape=shape, subject_N=subject_N, who=who)
    check_size(x_NCHW, y_N, size=facts.size, num_classes=num_classes, who=who)
    y_N = y_N.astype(np.int64)
    mean, std = channel_statistics(x_NCHW[: facts.train_count])
    return DataSet(
        facts.name,
        x_NCHW,
        y_N,
        num_classes,
        facts.train_count,
        mean,
        std,
        subject=subject_N,
        coarse=np.asarray(COARSE_OF_FINE, dtype=np.int64)[y_N] if facts.name == "cifar100" else None,
        ordered=facts.ordered,
        stride=facts.stride,
    )


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
    return _make(facts, x_NHW.repeat(2, axis=1).repeat(2, axis=2)[:, None], y_N, who="data set 'digits'")


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
            f"{path} is not the expected archive of x, y, subject ({first_line(error)}): fetch it anew"
        ) from error
    who = f"data set 'har' ({path})"
    if x_NCT.ndim != 3:
        raise UserError(f"{who}: x has the shape {list(x_NCT.shape)}; wanted [{facts.size}, 9, 128]")
    # Checked as it lies in the file, so that a line's row numbers are the file's.
    x_NCHW, shape = x_NCT[:, :, None, :], facts.shape
    check_rows(x_NCHW, y_N, num_classes=facts.num_classes, shape=shape, subject_N=subject_N, who=who)
    _check_people(subject_N, facts, who)
    # The file goes person by person; the official training split is 21 of the 30 people.
    order = np.argsort(~np.isin(subject_N, _HAR_TRAIN_PEOPLE), kind="stable")
    return _make(facts, x_NCHW[order], y_N[order], who=who, subject_N=subject_N[order].astype(np.int64))


def _check_people(subject_N: np.ndarray, facts: DatasetFacts, who: str) -> None:
    people = np.unique(subject_N)
    if not np.array_equal(people, np.arange(1, (facts.people or 0) + 1)):
        raise UserError(
            f"{who}: subject holds {len(people)} people, {people.min()} to {people.max()}; wanted {facts.people}, "
            f"numbered 1 to {facts.people}"
        )


def _pictures(facts: DatasetFacts, root: Path) -> DataSet:
    x_NCHW, y_N = read_pictures(facts, root)
    return _make(facts, x_NCHW, y_N, who=f"data set '{facts.name}' ({root / facts.files})")
