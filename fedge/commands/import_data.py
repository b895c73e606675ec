"""`fedge import`: pictures, a table, arrays or a generator of one's own become a data folder."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedge.commands.options import PlainCommand
from fedge.errors import UserError

if TYPE_CHECKING:
    from fedge.catalog.facts import Task
    from fedge.data.own.importing.images import Imported, Mode

import_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

# Arguments are explained in their command's docstring, as in fedge.commands.options.
Source = Annotated[str, typer.Argument(metavar="SOURCE", hidden=True)]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The data folder to make.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the data folder that --out holds.")]
TaskName = Annotated[
    str | None,
    typer.Option("--task", metavar="classes|labels|numbers", help="What y is [default: by its type]"),
]


@import_app.callback()
def bare_import(context: typer.Context) -> None:
    """Make a data folder, which a scenario names as data.dataset."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@import_app.command("images", cls=PlainCommand)
def images_command(
    source: Source,
    out: Out,
    size: Annotated[
        str | None,
        typer.Option(metavar="N|HEIGHT,WIDTH", help="Scale and cut every picture to this size in pixels."),
    ] = None,
    mode: Annotated[str | None, typer.Option(metavar="grey|rgb", help="Convert every picture.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE.csv", help="A file,LABEL,... table of 0 and 1: several labels a picture."),
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out files that cannot be read.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Read pictures from a folder per class.

    SOURCE: that holds a folder per class, or train, val and test, each with a folder per class. With --labels, whose
    table names the files below SOURCE, folders say nothing.
    """
    from fedge.data.own.importing import import_images

    sides = _numbers(size, "--size", (1, 2))
    side = None if sides is None else (sides[0], sides[-1])
    colours: Mode | None = mode  # type: ignore[assignment]  # import_images refuses other words
    with _reported():
        made = import_images(
            source,
            out,
            size=side,
            mode=colours,
            labels=labels,
            skip_broken=skip_broken,
            overwrite=overwrite,
        )
    _say(made)


@import_app.command("table", cls=PlainCommand)
def table_command(
    source: Source,
    out: Out,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of the class.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="COLUMN,...", help="Instead: columns of 0 and 1, any of which may hold."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN,...", help="Instead: columns of numbers, for a regression.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of whose row it is.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of when it was taken.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(metavar="C,T|C,H,W", help="Of one row's numbers: a row is a sample.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(metavar="ROWS", help="A row is a moment: cut windows of this many.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(metavar="ROWS", help="From a window to the next [default: --window]")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column to leave out; may be repeated.")
    ] = None,
    task: TaskName = None,
    overwrite: Overwrite = False,
) -> None:
    """Read a table of sensor data.

    SOURCE: a .csv or .parquet file; a row is a sample of --shape, or a moment of which --window make a sample.
    """
    from fedge.data.own.importing import import_table

    columns, kind = _columns(label, labels, target, _task(task))
    if step is not None and window is None:
        raise UserError(f"--step is {step}, and there is no --window that it goes on from: give --window too")
    if shape is not None and window is not None:
        raise UserError("--shape is for rows that are samples, --window for rows that are moments: give one")
    with _reported():
        made = import_table(
            source,
            out,
            label=columns,
            owner=owner,
            time=time,
            shape=_numbers(shape, "--shape", (2, 3)),
            window=window,
            step=step,
            drop=drop or (),
            task=kind,
            overwrite=overwrite,
        )
    _say(made)


def _columns(
    label: str | None, labels: str | None, target: str | None, task: "Task | None"
) -> "tuple[str | list[str], Task | None]":
    """The columns of what is to be told, and what they are."""
    options: list[tuple[str, str | None, Task | None]] = [
        ("--label", label, task),
        ("--labels", labels, "labels"),
        ("--target", target, "numbers"),
    ]
    given = [(option, text, kind) for option, text, kind in options if text is not None]
    if len(given) != 1:
        got = " and ".join(option for option, _, _ in given) or "none of them"
        raise UserError(
            f"--label, --labels and --target say what is to be told, and {got} is given; give one: a column of "
            "classes, columns of 0 and 1, or columns of numbers"
        )
    option, text, kind = given[0]
    if task is not None and task != kind:
        raise UserError(
            f"{option} is given, which makes task {kind!r}, and --task is {task!r}: leave --task out"
        )
    names = [name.strip() for name in text.split(",") if name.strip()]
    return (text, kind) if option == "--label" else (names, kind)


@import_app.command("arrays", cls=PlainCommand)
def arrays_command(source: Source, out: Out, task: TaskName = None, overwrite: Overwrite = False) -> None:
    """Read NumPy arrays.

    SOURCE: an .npz of x and y, and owner, order, classes if there are any (numpy.savez).
    """
    from fedge.data.own.importing import import_arrays

    with _reported():
        made = import_arrays(source, out, task=_task(task), overwrite=overwrite)
    _say(made)


@import_app.command("program", cls=PlainCommand)
def program_command(source: Source, out: Out, task: TaskName = None, overwrite: Overwrite = False) -> None:
    """Run a program of one's own that yields samples.

    SOURCE: a Python file with a function rows(), which yields (x, y), (x, y, owner) or (x, y, owner, time).
    """
    from fedge.data.own.importing import import_program

    with _reported():
        made = import_program(source, out, task=_task(task), overwrite=overwrite)
    _say(made)


@import_app.command("hub", cls=PlainCommand)
def hub_command(
    source: Source,
    out: Out,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of what is to be told.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of whose row it is.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="N|HEIGHT,WIDTH", help="Scale and cut every picture to this size in pixels."),
    ] = None,
    task: TaskName = None,
    overwrite: Overwrite = False,
) -> None:
    """Read a data set of the Hugging Face hub, or a folder that `datasets` reads.

    SOURCE: a name there, or the path of a folder of pictures, csv or parquet files.
    """
    from fedge.data.own.importing import import_hub

    sides = _numbers(size, "--size", (1, 2))
    side = None if sides is None else (sides[0], sides[-1])
    with _reported():
        made = import_hub(
            source, out, label=label, owner=owner, size=side, task=_task(task), overwrite=overwrite
        )
    _say(made)


def _task(name: str | None) -> "Task | None":
    kinds = ("classes", "labels", "numbers")
    if name is not None and name not in kinds:
        raise UserError(f"--task is {name!r}; take one of {', '.join(kinds)}")
    return name  # type: ignore[return-value]


def _numbers(text: str | None, option: str, lengths: Sequence[int]) -> tuple[int, ...] | None:
    """ "6,1,128" as numbers."""
    if text is None:
        return None
    words = [word.strip() for word in text.lower().replace("x", ",").split(",")]
    if len(words) not in lengths or not all(
        word.isascii() and word.isdigit() and int(word) for word in words
    ):
        wanted = " or ".join(map(str, lengths))
        raise UserError(
            f"{option} is {text!r}; {wanted} whole numbers from 1 are wanted, with commas between"
        )
    return tuple(map(int, words))


@contextmanager
def _reported() -> Iterator[None]:
    """An import that is watched; what no importer foresaw, of files and of memory, in one line."""
    from fedge.console.progress import watched

    try:
        with watched():
            yield
    except MemoryError:
        raise UserError(
            "the data do not fit into memory: import them in parts, or write x.npy by a program"
        ) from None
    except OSError as error:
        raise UserError(f"{error.filename or 'a file'}: {error.strerror or error}") from None


def _say(made: "Imported") -> None:
    """One line of what was made on stdout, and what a person should know on stderr."""
    from fedge.catalog.data_folder import folder_facts

    facts = folder_facts(made.folder)
    parts = [
        f"{facts.size:,} samples of {' x '.join(map(str, facts.shape))}",
        f"{facts.num_classes} {facts.task}",
        *([f"{facts.people} owners"] if facts.people else []),
        *(["in order of time"] if facts.ordered else []),
    ]
    print(f"{made.folder}: {', '.join(parts)}")
    for note in made.notes:
        print(f"fedge: {note}", file=sys.stderr)
