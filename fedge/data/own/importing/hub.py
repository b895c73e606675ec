"""A data set of the Hugging Face hub, or a folder that its `datasets` reads, becomes a data folder.

    fedge import hub mnist --out mine                       fetched by `datasets`, where the network allows
    fedge import hub photos/ --label furry --out mine       a folder of pictures, of csv or parquet files

x is the column of pictures, or that of arrays of equal shape; y a class, a list of 0 and 1, or numbers. The split that
is called train comes first, and is the official training split.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fedge.catalog.data_folder import PARTS
from fedge.catalog.facts import Task
from fedge.data.own.folder import write_dataset
from fedge.data.own.importing.images import Imported
from fedge.errors import UserError

_LABELS = ("label", "labels", "target", "y")


def import_hub(
    source: str | Path,
    folder: str | Path,
    *,
    label: str | None = None,
    owner: str | None = None,
    size: int | tuple[int, int] | None = None,
    task: Task | None = None,
    overwrite: bool = False,
) -> Imported:
    """Read what `datasets.load_dataset(source)` gives. label: the column of y (left out: the one called label, labels,
    target or y). owner: a column of names or numbers. size: to which pictures are scaled and cut, as (height, width) or
    a side. UserError, in one line, for what cannot be had or is no such data."""
    parts = _loaded(str(source))
    first = parts[0]
    y_name = label or next((name for name in _LABELS if name in first.column_names), None)
    if y_name is None or any(name not in first.column_names for name in (y_name, owner) if name):
        raise UserError(
            f"{source} has the columns {', '.join(first.column_names[:20])}; the one of what is to be told is wanted: "
            "--label COLUMN"
        )
    x_name = _samples_column(first, {y_name, owner}, str(source))
    side = (size, size) if isinstance(size, int) else size
    x = [_sample(row, side) for part in parts for row in part[x_name]]
    if len(forms := {(sample.shape, sample.dtype) for sample in x}) > 1:
        (one, _), (other, _) = list(forms)[:2]
        raise UserError(
            f"{source}: samples differ, {list(one)} and {list(other)}: give --size, or convert them alike"
        )
    written = write_dataset(
        folder,
        np.stack(x),
        np.array([row for part in parts for row in part[y_name]]),
        owner=None if owner is None else np.array([row for part in parts for row in part[owner]]),
        classes=getattr(first.features[y_name], "names", None),
        task=task,
        train_count=len(first) if len(parts) > 1 else None,
        title=Path(source).name,
        overwrite=overwrite,
    )
    return Imported(written, len(x))


def _loaded(source: str) -> Sequence[Any]:
    """The splits, training first."""
    from datasets import load_dataset  # slow
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        splits = load_dataset(source)
    except Exception as error:  # whatever the hub, the network and the files bring
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source} cannot be read by `datasets` ({type(error).__name__}: {reason})") from None
    names = sorted(splits, key=lambda name: (PARTS.get(name, len(PARTS)), name))
    return [splits[name] for name in names]


def _samples_column(part: Any, taken: set[str | None], source: str) -> str:
    """The one of pictures; else the one whose rows are lists, or arrays."""
    free = [name for name in part.column_names if name not in taken]
    pictures = [name for name in free if type(part.features[name]).__name__ == "Image"]
    found = pictures or [name for name in free if isinstance(part[0][name], list)]
    if len(found) != 1:
        raise UserError(
            f"{source} has {len(found)} columns of pictures or arrays among {', '.join(free[:20]) or 'none'}; one is "
            "wanted: a table of numbers is read by `fedge import table`"
        )
    return str(found[0])


def _sample(row: Any, size: tuple[int, int] | None) -> NDArray[Any]:
    """[C, H, W] uint8 of a picture, grey or in colour; an array as float32."""
    if not isinstance(row, Image.Image):
        return np.asarray(row, np.float32)
    picture = ImageOps.exif_transpose(row)
    picture = picture.convert("L" if picture.mode in ("1", "L", "I;16") else "RGB")
    if size is not None:
        picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
