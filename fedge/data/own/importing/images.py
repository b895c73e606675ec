"""A folder of pictures, a folder per class in it, becomes a data folder.

    SOURCE/cat/1.png, SOURCE/dog/2.jpg, ...                     one part
    SOURCE/train/cat/..., SOURCE/val/cat/..., SOURCE/test/...   several: `train` is the official training split

Pictures are turned as their EXIF orientation says. Sizes must be alike, or `size` given: then each is scaled to cover
it and cut to it from the middle. Without `mode`, all must be plain grey or plain RGB; with it, any is converted.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fedge.catalog.data_folder import PARTS, PICTURES
from fedge.data.own.folder import ArrayFile, new_folder, write_facts
from fedge.data.own.importing.label_table import LabelTable, read_labels
from fedge.errors import UserError
from fedge.progress import tell

Mode = Literal["grey", "rgb"]
_PIL_MODE = {"grey": "L", "rgb": "RGB"}


@dataclass(frozen=True)
class Imported:
    """What an import made: `samples` rows in `folder`; `notes` are lines that a person should read."""

    folder: Path
    samples: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Picture:
    path: Path
    label: str
    part: int


def import_images(
    source: str | Path,
    folder: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    mode: Mode | None = None,
    labels: str | Path | None = None,
    skip_broken: bool = False,
    overwrite: bool = False,
) -> Imported:
    """Read `source` into the data folder `folder`. size: side in pixels or (height, width).

    labels: a table of which labels each picture has (label_table.py), in place of a folder per class. skip_broken:
    leave out files that cannot be read; without it the first is an error. UserError, in one line, for anything that is
    no folder of pictures; nothing is left behind then.
    """
    source = Path(source)
    if mode is not None and mode not in _PIL_MODE:
        raise UserError(f"mode is {mode!r}; take grey or rgb")
    wanted = (size, size) if isinstance(size, int) else size
    if wanted is not None and min(wanted) < 1:
        raise UserError(f"size is {size}; it is a number of pixels, 1 or more")
    table = None if labels is None else read_labels(labels, source)
    pictures, odd = _find(source) if table is None else _named(source, table)
    good, form, broken = _look(pictures, wanted, mode, skip_broken)
    names, y = _classes(source, good) if table is None else (table.names, table.targets(p.path for p in good))
    train = sum(picture.part == 0 for picture in good)
    with new_folder(Path(folder), overwrite=overwrite) as partial:
        _write(partial, good, y, form, wanted)
        write_facts(
            partial,
            title=source.absolute().name,
            task="classes" if table is None else "labels",
            classes=names,
            train_count=train if 0 < train < len(good) else None,
        )
    why_odd = "no pictures" if table is None else "not named in the table"
    return Imported(Path(folder), len(good), tuple(_notes({why_odd: odd, "unreadable": broken})))


def _named(source: Path, table: LabelTable) -> tuple[list[_Picture], list[Path]]:
    """The pictures of the table, in its order; and those that it does not name."""
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in PICTURES)
    return [_Picture(path, "", 0) for path in table.rows], [path for path in files if path not in table.rows]


def _classes(source: Path, pictures: Sequence[_Picture]) -> tuple[list[str], NDArray[Any]]:
    """The classes' names, and each picture's class [N]."""
    names = sorted({picture.label for picture in pictures})
    if len(names) < 2:
        raise UserError(
            f"{source} holds pictures of one class, {names[0]!r}; two folders of them at least are wanted"
        )
    return names, np.array([names.index(picture.label) for picture in pictures], np.int64)


def _notes(left_out: Mapping[str, Sequence[Path]]) -> Iterator[str]:
    for why, files in left_out.items():
        if files:
            yield f"{len(files)} files were left out as {why}, the first: {files[0]}"


def _find(source: Path) -> tuple[list[_Picture], list[Path]]:
    """The pictures, official training ones first, in the order of their paths; and what else lies there."""
    if not source.is_dir():
        raise UserError(f"{source} is no folder; give the folder that holds a folder of pictures per class")
    parts = {sub: PARTS[sub.name.lower()] for sub in _folders(source) if sub.name.lower() in PARTS}
    if parts and len(parts) < len(_folders(source)):
        other = next(sub.name for sub in _folders(source) if sub not in parts)
        raise UserError(
            f"{source} holds {next(iter(parts)).name!r} and {other!r}: either parts or classes, not both"
        )
    pictures, odd = [], [file for file in sorted(source.iterdir()) if file.is_file()]
    for top, part in sorted((parts or {source: 0}).items(), key=lambda item: (item[1], item[0])):
        for sub in _folders(top):
            for file in sorted(path for path in sub.rglob("*") if path.is_file()):
                if file.suffix.lower() in PICTURES:
                    pictures.append(_Picture(file, sub.name, part))
                else:
                    odd.append(file)
    if not pictures:
        raise UserError(
            f"{source} holds no pictures in folders; wanted: a folder per class, of "
            f"{', '.join(sorted(PICTURES))} files"
        )
    return pictures, [file for file in odd if not file.name.startswith(".")]


def _folders(folder: Path) -> list[Path]:
    return sorted(sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith("."))


def _look(
    pictures: Sequence[_Picture], size: tuple[int, int] | None, mode: Mode | None, skip_broken: bool
) -> tuple[list[_Picture], tuple[str, tuple[int, int]], list[Path]]:
    """Read every picture once: those that are sound, their (mode, (height, width)), and the broken ones."""
    good, broken, forms = [], [], Counter[tuple[str, tuple[int, int]]]()
    example: dict[tuple[str, tuple[int, int]], Path] = {}
    for index, picture in enumerate(pictures):
        tell("checking", index, len(pictures))
        try:
            image = _open(picture.path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if not skip_broken:
                reason = str(error).split(str(picture.path))[0].strip(" '\"") or type(error).__name__
                raise UserError(
                    f"{picture.path} cannot be read ({reason}): remove it, or --skip-broken"
                ) from None
            broken.append(picture.path)
            continue
        form = _PIL_MODE[mode] if mode else image.mode, size or (image.height, image.width)
        example.setdefault(form, picture.path)
        forms[form] += 1
        good.append(picture)
    if not good:
        raise UserError(f"none of {len(pictures)} pictures can be read, the first is {pictures[0].path}")
    _require_alike(forms, example)
    return good, next(iter(forms)), broken


def _require_alike(
    forms: Counter[tuple[str, tuple[int, int]]], example: dict[tuple[str, tuple[int, int]], Path]
) -> None:
    odd = [form for form in forms if form[0] not in ("L", "RGB")]
    if odd:
        raise UserError(
            f"{example[odd[0]]} is in colour mode {odd[0][0]}; plain grey (L) or RGB is wanted: "
            "--mode rgb or --mode grey converts all"
        )
    if len({mode for mode, _ in forms}) > 1:
        grey, colour = (
            next(path for form, path in example.items() if form[0] == mode) for mode in ("L", "RGB")
        )
        raise UserError(f"{grey} is grey and {colour} is RGB: --mode rgb or --mode grey converts all")
    if len({size for _, size in forms}) > 1:
        (_, one), (_, other) = list(forms)[:2]
        raise UserError(
            f"pictures differ in size: {one[1]} x {one[0]} and {other[1]} x {other[0]} pixels "
            f"({example[list(forms)[1]]}): give --size, to which all are scaled and cut"
        )


def _open(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)


def _write(
    folder: Path,
    pictures: Sequence[_Picture],
    targets: NDArray[Any],
    form: tuple[str, tuple[int, int]],
    size: tuple[int, int] | None,
) -> None:
    mode, (height, width) = form
    channels = len(Image.new(mode, (1, 1)).getbands())
    with (
        ArrayFile(folder / "x.npy", np.dtype(np.uint8), (channels, height, width)) as x,
        ArrayFile(folder / "y.npy", targets.dtype, targets.shape[1:]) as y,
    ):
        y.append(targets)
        for index, picture in enumerate(pictures):
            tell("importing", index, len(pictures))
            x.append(_pixels(_open(picture.path), mode, size)[None])


def _pixels(image: Image.Image, mode: str, size: tuple[int, int] | None) -> NDArray[Any]:
    """[C, H, W] uint8."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert(mode)
    if size is not None and (image.height, image.width) != size:
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR)
    x_HWC = np.asarray(image)
    return x_HWC[None] if x_HWC.ndim == 2 else x_HWC.transpose(2, 0, 1)
