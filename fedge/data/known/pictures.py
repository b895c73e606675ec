"""The files of MNIST, Fashion-MNIST and CIFAR: found or fetched, read, and their parts counted.

Legend: N rows of both official parts, training first, C channels, H height, W width.
"""

import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fedge.catalog.facts import DatasetFacts
from fedge.data.known.cifar100_classes import COARSE_OF_FINE
from fedge.data.known.idx import read_idx
from fedge.data.known.rows import Rows
from fedge.errors import UserError

_DOWNLOAD_TIMEOUT_S = 30.0
_READERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
_PACKED = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}

Part = tuple[np.ndarray, np.ndarray]  # pictures, labels


def read(facts: DatasetFacts, root: Path) -> Rows:
    """Pictures [N, C, H, W] of uint8. UserError: files missing and not to be had, damaged, or mixed up."""
    folder = root / facts.files
    if not folder.is_dir():
        _download(facts, root)
    of_mnist = facts.name in ("mnist", "fashion_mnist")
    parts = _idx_parts(folder, facts.name) if of_mnist else _cifar_parts(facts, root)
    wanted = (facts.train_count, facts.size - facts.train_count)
    for (x, y), part, rows in zip(parts, ("training", "test"), wanted, strict=True):
        if len(x) != len(y):
            raise UserError(
                f"data set '{facts.name}' ({folder}): the {part} part has {len(x):,} pictures and {len(y):,} labels; "
                f"wanted {rows:,} of both: is a file of another part under its name?"
            )
    x_NCHW = np.concatenate([x for x, _ in parts])
    y_N = np.concatenate([y for _, y in parts])
    if len(y_N) == facts.size and len(parts[0][0]) != facts.train_count:
        raise UserError(
            f"data set '{facts.name}' ({folder}): {len(parts[0][0]):,} training pictures found, {wanted[0]:,} wanted: "
            "are training and test files mixed up?"
        )
    coarse_of_class = np.asarray(COARSE_OF_FINE, dtype=np.int64) if facts.name == "cifar100" else None
    return Rows(x_NCHW, y_N, who=f"data set '{facts.name}' ({folder})", coarse_of_class=coarse_of_class)


def _idx_parts(folder: Path, name: str) -> list[Part]:
    who = f"data set '{name}'"
    return [
        (
            read_idx(folder, f"{part}-images-idx3-ubyte", dimensions=3, who=who)[:, None],
            read_idx(folder, f"{part}-labels-idx1-ubyte", dimensions=1, who=who),
        )
        for part in ("train", "t10k")
    ]


def _cifar_parts(facts: DatasetFacts, root: Path) -> list[Part]:
    """Through torchvision's own reader, which checks md5 sums before it unpickles."""
    reader = _reader(facts)
    try:
        parts = [reader(str(root), train=train, download=False) for train in (True, False)]
    except Exception as error:  # torchvision raises RuntimeError, ValueError, OSError, unpickling errors …
        reason = _damage(reader, root / facts.files) or first_line(error)
        raise UserError(
            f"data set '{facts.name}' in {root / facts.files} is incomplete or damaged ({reason}): put that folder "
            "there anew"
        ) from error
    return [
        (np.ascontiguousarray(np.asarray(part.data).transpose(0, 3, 1, 2)), np.asarray(part.targets))
        for part in parts
    ]


def _damage(reader: Any, folder: Path) -> str | None:
    """The first file that is missing or not the published one."""
    from torchvision.datasets.utils import check_integrity

    meta = (reader.meta["filename"], reader.meta["md5"])
    for name, md5 in [*reader.train_list, *reader.test_list, meta]:
        if not (folder / name).is_file():
            return f"{name} is missing"
        if not check_integrity(str(folder / name), md5):
            return f"{name} is not the published file: its md5 sum differs"
    return None


def _reader(facts: DatasetFacts) -> Any:
    from fedge.torchvision_compat import import_torchvision_datasets

    return getattr(import_torchvision_datasets(), _READERS[facts.name])


def _download(facts: DatasetFacts, root: Path) -> None:
    """Fetch into a temporary folder and move it in whole, so that a failure leaves nothing behind."""
    packed = root / _PACKED.get(facts.name, "")
    if packed.is_file():
        raise UserError(f"data set '{facts.name}' is still packed: unpack {packed} in {root} (tar -xzf)")
    timeout_s = socket.getdefaulttimeout()
    top = Path(facts.files).parts[0]
    if (root / top).exists():
        raise UserError(
            f"data set '{facts.name}' needs the folder {facts.files} in {root}, and {root / top} has no such folder: "
            "put its files there, or remove it to have them downloaded"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)  # torchvision sets none: a dead network would hang
        with tempfile.TemporaryDirectory(dir=root) as temporary:
            _reader(facts)(temporary, train=True, download=True)
            shutil.move(Path(temporary) / top, root / top)
    except Exception as error:
        raise UserError(
            f"data set '{facts.name}' needs the folder {facts.files}, looked in {root}, and it could not be"
            f" downloaded ({first_line(error)}): put it there, or name the folder that holds {top} with"
            " --set data.root=… or FEDGE_DATA; dataset = 'digits' needs no files"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout_s)


def first_line(error: BaseException) -> str:
    """What an exception says, in one line that is never empty."""
    lines = str(error).strip().splitlines()
    return (lines[0].rstrip(": ") if lines else "") or type(error).__name__
