"""What a data folder says of itself in `facts.json`: all that is opened of it before the data are prepared.

fedge.data.own.folder writes such folders. Here nothing but the JSON is read: neither torch nor NumPy is needed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedge.catalog.facts import DatasetFacts, Task
from fedge.errors import UserError

FACTS = "facts.json"
FORMAT, VERSION = "fedge-data", 1
PICTURES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
)  # files that `fedge import images` reads
PARTS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}
_TABLES = {".csv": "table", ".parquet": "table", ".pq": "table", ".npz": "arrays", ".py": "program"}

Count = Annotated[int, Field(ge=1)]


class _Facts(BaseModel):
    """facts.json, as fedge.data.own.folder describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["fedge-data"]
    version: Literal[1]
    title: str
    task: Task
    shape: tuple[Count, Count, Count]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    size: Count
    train_count: Count
    owners: Count | None = None
    ordered: bool = False
    stride: Count | None = None
    digest: Annotated[str, Field(pattern=r"^blake2b:[0-9a-f]+$")]

    @model_validator(mode="after")
    def _counts_agree(self) -> "_Facts":
        if self.train_count > self.size:
            raise ValueError(f"train_count is {self.train_count} and size {self.size}")
        if self.task == "classes" and len(self.classes) < 2:
            raise ValueError("task 'classes' has one class; two at least are wanted")
        return self


@dataclass(frozen=True)
class FolderFacts(DatasetFacts):
    """Facts of a data folder. `name` is the folder's with a slash, which no data set that fedge knows has.

    `classes`: their names, or those of y's columns where `task` is "labels" or "numbers". `digest`: of the arrays.
    """

    folder: Path = Path()
    classes: tuple[str, ...] = ()
    digest: str = ""


def folder_facts(folder: str | Path) -> FolderFacts:
    """Read `folder`/facts.json and nothing else. UserError: no such folder, none of data, or damaged facts."""
    path = Path(folder).expanduser()
    try:
        text = (path / FACTS).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"data.dataset is '{folder}': {_what_lies_there(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path / FACTS} cannot be read ({error}): import the data anew") from None
    try:
        facts = _Facts.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path / FACTS}: {f'{place!r}: ' if place else ''}{_reason(first['msg'])}: import the data anew"
        ) from None
    return FolderFacts(
        name=f"{path.absolute().name}/",
        title=facts.title,
        shape=facts.shape,
        num_classes=len(facts.classes),
        size=facts.size,
        train_count=facts.train_count,
        people=facts.owners,
        ordered=facts.ordered,
        stride=facts.stride,
        folder=path.absolute(),
        task=facts.task,
        classes=facts.classes,
        digest=facts.digest,
    )


def facts_text(**facts: object) -> str:
    """facts.json of a folder that is being written; ValidationError where the facts are none."""
    checked = _Facts.model_validate_json(json.dumps({"format": FORMAT, "version": VERSION, **facts}))
    return json.dumps(checked.model_dump(mode="json"), indent=2) + "\n"


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ").replace("\n", " ")


def _what_lies_there(path: Path) -> str:
    """What is there instead of a data folder, and the command that makes one of it."""
    if path.is_file():
        kind = _TABLES.get(path.suffix.lower())
        what = f": fedge import {kind} {path} --out NAME" if kind else "; a data folder or a name is wanted"
        return f"it is a file, no data folder{what}"
    if not path.is_dir():
        return "no such folder; a data folder (fedge import makes one) or a name of `fedge list datasets` is wanted"
    if classes := _picture_folders(path):
        return (
            f"no {FACTS} in it, but {classes} folders of pictures: "
            f"fedge import images {path} --size 48 --out NAME"
        )
    for file in _visible(path):
        if kind := _TABLES.get(file.suffix.lower()):
            return f"no {FACTS} in it, but {file.name}: fedge import {kind} {file} --out NAME"
    return f"no {FACTS} in it: `fedge import` or fedge.write_dataset makes a data folder"


def _picture_folders(path: Path) -> int:
    """How many folders, one or two below, hold a picture."""
    tops = [sub for sub in _visible(path) if sub.is_dir()]
    if tops and all(sub.name.lower() in PARTS for sub in tops):
        tops = [sub for top in tops[:1] for sub in _visible(top) if sub.is_dir()]
    return sum(any(file.suffix.lower() in PICTURES for file in _visible(sub)) for sub in tops)


def _visible(path: Path) -> Iterator[Path]:
    try:
        yield from sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError:
        return
