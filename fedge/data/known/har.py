"""UCI HAR: windows of a phone's motion sensors, of 30 people.

Legend: N windows, C channels, T moments.
"""

from pathlib import Path

import numpy as np

from fedge.catalog.facts import DatasetFacts
from fedge.data.known.pictures import first_line
from fedge.data.known.rows import Rows
from fedge.errors import UserError

# The people whose windows are the official training split (README of the data: 70 % of the volunteers).
_TRAIN_PEOPLE = (1, 3, 5, 6, 7, 8, 11, 14, 15, 16, 17, 19, 21, 22, 23, 25, 26, 27, 28, 29, 30)


def read(facts: DatasetFacts, root: Path) -> Rows:
    """Nine signals per window (body and total acceleration, gyroscope; x, y, z), from `uci_har.npz`.

    The file goes person by person; the official training split is 21 of the 30 people.
    """
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
    _check_people(subject_N, facts, who)
    order_N = np.argsort(~np.isin(subject_N, _TRAIN_PEOPLE), kind="stable")
    return Rows(x_NCT[:, :, None, :], y_N, who=who, subject_N=subject_N, order_N=order_N)


def _check_people(subject_N: np.ndarray, facts: DatasetFacts, who: str) -> None:
    people = np.unique(subject_N)
    if not np.array_equal(people, np.arange(1, (facts.people or 0) + 1)):
        span = f", {people[0]} to {people[-1]}" if len(people) else ""
        raise UserError(
            f"{who}: subject holds {len(people)} people{span}; wanted {facts.people}, "
            f"numbered 1 to {facts.people}"
        )
