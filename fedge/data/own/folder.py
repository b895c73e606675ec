"""A user's own data: a folder of plain arrays and a page of facts, which is all that a coordinator opens.

    facts.json   format, version, title, task, shape [C, H, W], classes, size, train_count, owners, ordered, digest
    x.npy        [N, C, H, W] uint8 or float32; of a time series H is 1
    y.npy        classes: int64 [N], 0 .. K-1;  labels: uint8 [N, K] of 0 and 1;  numbers: float32 [N, K]
    owner.npy    int64 [N], 0 .. P-1: whose sample it is; optional
    order.npy    int64 [N]: when it was taken, as a rank within its owner; optional

The arrays are memory-mapped when they are read, and their digest is made once, when they are written. A folder is
filled beside its place and moved there whole: nothing half-made is ever found.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedge.catalog.data_folder import FACTS, facts_text
from fedge.catalog.facts import Task
from fedge.data.blocks import blocks
from fedge.data.own.arrays import as_order, as_owners, as_samples, as_targets
from fedge.errors import UserError
from fedge.progress import tell

ARRAYS = ("x", "y", "owner", "order")
_BLOCK_BYTES = 1 << 24


def write_dataset(
    folder: str | Path,
    x: ArrayLike,
    y: ArrayLike,
    *,
    owner: ArrayLike | None = None,
    order: ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    task: Task | None = None,
    train_count: int | None = None,
    stride: int | None = None,
    title: str = "",
    overwrite: bool = False,
) -> Path:
    """Write arrays as a data folder, which a scenario names as `data.dataset`; the folder's path.

    x: samples [N, C, H, W], uint8 (0..255) or float32; grey pictures [N, H, W] in uint8 and time series [N, C, T] in
    float32 get their missing axis. y: by `task` (left out: by y's type): class numbers 0..K-1 or names [N]; labels
    [N, K] of 0 and 1; numbers [N, K]. owner: whose each sample is, names or numbers [N]. order: when it was taken [N],
    comparable within an owner. classes: the names of the K classes. train_count: the first rows that are the official
    training split; left out: all. stride: of windows of one signal, moments from one's beginning to that of its owner's
    next, so that none that overlap are on both sides of a split; left out: no two share a moment. A folder that holds
    something is refused unless `overwrite`.

    Raises UserError, in one line, for arrays that fedge does not mean; nothing is left behind then.
    """
    samples = as_samples(np.asarray(x))
    targets, kind, names = as_targets(np.asarray(y), task, classes)
    arrays = {"x": samples, "y": targets}
    if owner is not None:
        arrays["owner"] = as_owners(np.asarray(owner))
    if order is not None:
        arrays["order"] = as_order(np.asarray(order), arrays.get("owner"))
    for name, array in arrays.items():
        if len(array) != len(samples):
            raise UserError(f"{name} has {len(array)} rows and x {len(samples)}; each sample needs one")
    if stride is not None and (stride < 1 or order is None):
        raise UserError(
            f"stride is {stride}; it is a number of moments, 1 or more, of rows that have an order"
        )
    tell("writing")
    with new_folder(Path(folder), overwrite=overwrite) as partial:
        for name, array in arrays.items():
            with ArrayFile(partial / f"{name}.npy", array.dtype, array.shape[1:]) as file:
                for _, block in blocks(array, _BLOCK_BYTES):
                    file.append(block)
        write_facts(
            partial,
            title=title or Path(folder).name,
            task=kind,
            classes=names,
            train_count=train_count,
            stride=stride,
        )
    return Path(folder)


def write_facts(
    folder: Path,
    *,
    title: str,
    task: Task,
    classes: Sequence[str],
    train_count: int | None = None,
    stride: int | None = None,
) -> None:
    """Write facts.json of the arrays that lie in `folder`."""
    arrays = {
        name: np.load(folder / f"{name}.npy", "r") for name in ARRAYS if (folder / f"{name}.npy").is_file()
    }
    size = len(arrays["x"])
    if train_count is not None and not 0 < train_count <= size:
        raise UserError(f"train_count is {train_count}; it is a number of samples, 1 to {size}")
    text = facts_text(
        title=title,
        task=task,
        shape=list(arrays["x"].shape[1:]),
        classes=list(classes),
        size=size,
        train_count=train_count or size,
        owners=int(arrays["owner"].max()) + 1 if "owner" in arrays else None,
        ordered="order" in arrays,
        stride=stride,
        digest=f"blake2b:{digest(arrays)}",
    )
    (folder / FACTS).write_text(text, encoding="utf-8")


def digest(arrays: dict[str, NDArray[Any]]) -> str:
    """Of the arrays' names, types, shapes and contents, in blocks: memory does not grow with the data."""
    summed = hashlib.blake2b(digest_size=16)
    for name, array in arrays.items():
        summed.update(f"{name} {array.dtype.str} {array.shape}".encode())
        for _, block in blocks(array, _BLOCK_BYTES):
            summed.update(np.ascontiguousarray(block).data.cast("B") if block.size else b"")
    return summed.hexdigest()


@contextmanager
def new_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to be filled, which takes the place of `folder` at the end; on an error nothing is left."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give another folder")
    if folder.is_dir() and any(folder.iterdir()) and not (overwrite and (folder / FACTS).is_file()):
        held = (
            "a data folder: --overwrite, overwrite=True, replaces it"
            if (folder / FACTS).is_file()
            else "not a data folder"
        )
        raise UserError(f"{folder} is not empty ({held}), or give another folder")
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}; give another folder") from None
    try:
        yield partial
        partial.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class ArrayFile:
    """An .npy file that grows row by row; its header is put right when it is closed."""

    _HEADER_BYTES = 256

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: Sequence[int]) -> None:
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed by __exit__
        self._dtype, self._shape, self.rows = np.dtype(dtype), tuple(shape), 0
        self._file.write(b"\0" * self._HEADER_BYTES)

    def append(self, rows: NDArray[Any]) -> None:
        """Rows [B, *shape] of the file's type."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self.rows += len(rows)

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        order = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False}
        text = repr(order | {"shape": (self.rows, *self._shape)}).encode()
        magic = np.lib.format.magic(1, 0)
        room = self._HEADER_BYTES - len(magic) - 2
        self._file.seek(0)
        self._file.write(magic + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n")
        self._file.close()
        return False
