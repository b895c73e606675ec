"""A data folder as a data set: its arrays memory-mapped, and not read where they are known to be as they were written.

facts.json holds the arrays' digest. The first time that fedge sees them it reads them all and compares; then it notes
in the cache the files' sizes and times of change, and while these stay, nothing is read.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedge.catalog.data_folder import FolderFacts
from fedge.data.checks import check_rows
from fedge.data.dataset import DataSet, channel_statistics
from fedge.data.own.folder import ARRAYS, digest
from fedge.data.targets import DTYPES, row_shape
from fedge.errors import UserError
from fedge.paths import cache_folder
from fedge.progress import tell

_DTYPES = {"x": ("uint8", "float32"), "owner": ("int64",), "order": ("int64",)}
_KEPT = "checked-data"  # folder in the cache


def load_folder(facts: FolderFacts) -> DataSet:
    """The data set of a folder whose facts were read. UserError: its files are not those that were written."""
    arrays = _arrays(facts)
    noted = _noted(facts, arrays)
    return DataSet(
        name=facts.name,
        x=arrays["x"],
        y=np.array(arrays["y"]),
        num_classes=facts.num_classes,
        train_count=facts.train_count,
        mean=tuple(noted["mean"]),
        std=tuple(noted["std"]),
        subject=np.array(arrays["owner"]) if "owner" in arrays else None,
        order=np.array(arrays["order"]) if "order" in arrays else None,
        ordered=facts.ordered,
        stride=facts.stride,
        classes=facts.classes,
        digest=f"{facts.digest} {facts.train_count} {facts.num_classes} {facts.stride}",
        task=facts.task,
    )


def _arrays(facts: FolderFacts) -> dict[str, NDArray[Any]]:
    """The memory-mapped arrays, whose headers and sizes fit the facts."""
    wanted = ["x", "y", *(["owner"] if facts.people else []), *(["order"] if facts.ordered else [])]
    arrays: dict[str, NDArray[Any]] = {}
    for name in ARRAYS:
        path = facts.folder / f"{name}.npy"
        if name not in wanted:
            if path.exists():
                raise UserError(f"{path} lies there and facts.json knows nothing of it: import it anew")
            continue
        arrays[name] = _mapped(path)
        dtypes = (DTYPES[facts.task].name,) if name == "y" else _DTYPES[name]
        if arrays[name].dtype.name not in dtypes:
            raise UserError(
                f"{path} is {arrays[name].dtype}; {' or '.join(dtypes)} is wanted: import it anew"
            )
        if len(arrays[name]) != facts.size:
            raise UserError(
                f"{facts.folder.name}/facts.json says {facts.size} rows, {name}.npy has {len(arrays[name])}: "
                "import it anew"
            )
        of_y = row_shape(facts.task, facts.num_classes)
        shape = {"x": facts.shape, "y": of_y}.get(name, ())
        if arrays[name].shape[1:] != shape:
            said = f"{facts.num_classes} {facts.task}" if name == "y" else f"samples of {list(facts.shape)}"
            raise UserError(
                f"{facts.folder.name}/facts.json says {said}, {name}.npy has the shape {list(arrays[name].shape)}: "
                "import it anew"
            )
    return arrays


def _mapped(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, "r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: import the data anew") from None
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} is damaged ({reason}): import the data anew") from None
    if array.ndim == 0 or not array.flags.c_contiguous:
        raise UserError(f"{path} is no array of rows, one after another: write it with fedge.write_dataset")
    return array


def _noted(facts: FolderFacts, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Statistics of the arrays, which are as they were written; noted in the cache, so that they are read once."""
    stats = {name: (facts.folder / f"{name}.npy").stat() for name in arrays}
    seen = {
        "digest": facts.digest,
        "train_count": facts.train_count,
        "classes": facts.num_classes,
        "files": {name: [stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in stats.items()},
    }
    key = hashlib.blake2b(str(facts.folder).encode(), digest_size=8).hexdigest()
    path = cache_folder() / _KEPT / f"{key}.json"
    try:
        noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if noted["seen"] == seen and noted["mean"] and noted["std"]:
            return noted
    except (OSError, ValueError, KeyError, TypeError):
        pass
    _check(facts, arrays)
    mean, std = channel_statistics(arrays["x"][: facts.train_count])
    noted = {"seen": seen, "mean": mean, "std": std}
    _keep(path, noted)
    return noted


def _check(facts: FolderFacts, arrays: dict[str, NDArray[Any]]) -> None:
    tell("checking")
    if f"blake2b:{digest(arrays)}" != facts.digest:
        raise UserError(
            f"{facts.folder}: its arrays have changed since facts.json was written: import the data anew"
        )
    who = f"data.dataset '{facts.folder}'"
    check_rows(
        arrays["x"],
        arrays["y"],
        num_classes=facts.num_classes,
        shape=facts.shape,
        subject_N=arrays.get("owner"),
        task=facts.task,
        who=who,
    )


def _keep(path: Path, noted: dict[str, Any]) -> None:
    """Best effort: without the note the arrays are read again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{id(noted)}")
        partial.write_text(json.dumps(noted), encoding="utf-8")
        partial.replace(path)
    except OSError:
        return
