"""Load a whole data set into arrays, official training rows first.

Legend: N rows, C channels, H height, W width, T moments.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedge.catalog.data_folder import FolderFacts
from fedge.catalog.datasets import dataset_facts
from fedge.catalog.facts import DatasetFacts
from fedge.data.checks import check_rows, check_size
from fedge.data.dataset import DataSet, channel_statistics
from fedge.data.known.cifar100_classes import COARSE_OF_FINE
from fedge.data.known.pictures import first_line, read_pictures
from fedge.data.own.reading import load_folder
from fedge.errors import UserError

# The people whose windows are the official training split (UCI HAR, README: 70 % of the volunteers).
_HAR_TRAIN_PEOPLE = (1, 3, 5, 6, 7, 8, 11, 14, 15, 16, 17, 19, 21, 22, 23, 25, 26, 27, 28, 29, 30)


def load_dataset(name: str, root: Path | str) -> DataSet:
    """A data folder's, memory-mapped; or the data set called `name` from its files under `root`, fetched first where
    they are absent and the network allows.

    `digits` needs neither. UserError: no such set; files missing and not to be had; files unreadable, or not what is
    known of the set (dtypes, shapes, counts, classes, finite numbers).
    """
    facts = dataset_facts(name)
    if isinstance(facts, FolderFacts):
        return load_folder(facts)
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
        span = f", {people[0]} to {people[-1]}" if len(people) else ""
        raise UserError(
            f"{who}: subject holds {len(people)} people{span}; wanted {facts.people}, "
            f"numbered 1 to {facts.people}"
        )


def _pictures(facts: DatasetFacts, root: Path) -> DataSet:
    x_NCHW, y_N = read_pictures(facts, root)
    return _make(facts, x_NCHW, y_N, who=f"data set '{facts.name}' ({root / facts.files})")
