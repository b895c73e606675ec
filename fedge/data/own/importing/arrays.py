"""An .npz of x and y (and owner, order, classes) becomes a data folder."""

from pathlib import Path

import numpy as np

from fedge.catalog.facts import Task
from fedge.data.own.folder import write_dataset
from fedge.data.own.importing.images import Imported
from fedge.errors import UserError
from fedge.progress import tell

_KNOWN = {"x", "y", "owner", "order", "classes"}


def import_arrays(
    source: str | Path, folder: str | Path, *, task: Task | None = None, overwrite: bool = False
) -> Imported:
    """Read the archive `source`: x and y, and owner, order and classes if they are there; as `write_dataset` takes
    them. UserError for what is no such archive."""
    tell("reading")
    try:
        with np.load(source, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # whatever a broken archive makes numpy and zipfile raise
        raise UserError(f"{source} is no .npz of arrays ({error}): numpy.savez writes one") from None
    if missing := {"x", "y"} - set(arrays):
        raise UserError(
            f"{source} holds {', '.join(sorted(arrays)) or 'nothing'} and no {sorted(missing)[0]!r}; x and y are wanted"
        )
    classes = arrays.get("classes")
    path = write_dataset(
        folder,
        arrays["x"],
        arrays["y"],
        owner=arrays.get("owner"),
        order=arrays.get("order"),
        classes=None if classes is None else [str(name) for name in classes],
        task=task,
        title=Path(source).stem,
        overwrite=overwrite,
    )
    unknown = sorted(set(arrays) - _KNOWN)
    notes = (f"arrays that were left out: {', '.join(unknown)}",) if unknown else ()
    return Imported(path, len(arrays["x"]), notes)
