"""`fedge new`: a file to start from, which runs as it is written."""

import re
from pathlib import Path
from typing import Annotated

import typer

from fedge.catalog.names import did_you_mean
from fedge.catalog.text import read_text
from fedge.errors import UserError

_TEMPLATES = Path(__file__).resolve().parent.parent / "templates"

KINDS = {  # kind -> what is said of the file FILE
    "client": "fedge try quickstart --set client=FILE",
    "network": "fedge try quickstart --set 'model={program=\"FILE\"}'",
    "policy": "fedge run quickstart --set schedule.program=FILE",
    "criterion": "fedge try quickstart --round 2 --set training.pruning.criterion=FILE:by_variance",
    "filter": "fedge try quickstart --set 'training.instance_filter={kind=\"FILE:Every\", args={nth=3}}'",
    "score": "fedge try quickstart --set training.error_maps.score=FILE:by_weight",
    "transform": "fedge try quickstart --set training.transform=FILE:jitter",
    "scenario": "fedge try FILE",
}


def kinds_like(incomplete: str) -> list[str]:
    """The kinds that begin so."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def new_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(KINDS),
            help="What to write [default: client for .py, scenario for .toml]",
            autocompletion=kinds_like,
        ),
    ] = None,
) -> None:
    """Write a file of your own to start from. It runs as it is.

    FILE: the file to make; one that is there is left alone.
    """
    print(f"{write_template(file, kind)}\ntry it:  {try_it(file, kind)}")


def write_template(file: Path, kind: str | None = None) -> str:
    """Write the template of `kind`, by default that of the file's suffix; what was done, in a line."""
    kind = _kind(file, kind)
    wanted = _template(kind).suffix
    if file.suffix != wanted:
        raise UserError(f"{file} is to be a {kind}; give it a name that ends in {wanted}")
    if file.stem in ("fedge", "torch", "numpy", "flwr", "ray"):
        raise UserError(
            f"{file} would hide the package {file.stem!r} from what lies beside it: choose another name"
        )
    text = read_text(_template(kind))
    if kind == "scenario":
        name = re.sub(r"[^A-Za-z0-9._-]", "-", file.stem).lstrip("._-")[:64]
        text = text.replace('name = "template"', f'name = "{name or kind}"')
    try:
        with open(file, "x", encoding="utf-8") as made:
            made.write(text)
    except FileExistsError:
        raise UserError(f"{file} is there already, and is left as it is: give another name") from None
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from None
    return f"{file}: a {kind} of your own"


def try_it(file: Path, kind: str | None = None) -> str:
    """The command that runs what was written."""
    return KINDS[_kind(file, kind)].replace("FILE", str(file))


def _kind(file: Path, kind: str | None) -> str:
    if kind is None:
        return "scenario" if file.suffix == ".toml" else "client"
    if kind not in KINDS:
        raise UserError(f"no template of {kind!r}; {did_you_mean(kind, KINDS)}")
    return kind


def _template(kind: str) -> Path:
    return _TEMPLATES / f"{kind}.{'toml' if kind == 'scenario' else 'py'}"
