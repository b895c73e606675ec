"""`fedge study`: the command line of studies."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fedge.commands.options import Watch, studies_like

if TYPE_CHECKING:
    from fedge.study.runner import StudyObserver


def study_command(
    study: Annotated[str, typer.Argument(metavar="STUDY", hidden=True, autocompletion=studies_like)],
    out: Annotated[Path | None, typer.Option(help="Folder of results [default: studies/<study>]")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time.")] = 1,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the scenario of every cell."),
    ] = None,
    engine: Annotated[str | None, typer.Option(metavar="ray|inline", help="Where the devices run.")] = None,
    watch: Watch = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and its costs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Run what is missing of a study: arms x grid x worlds x seeds of one scenario, paired and summarised.

    STUDY: a name in studies/, or a TOML file. Stopped, killed and run again, it ends the same.
    """
    from fedge.console.interrupt import Stopped, interruptible
    from fedge.console.observer import Observer
    from fedge.study.run import run_study, study_out
    from fedge.study.study import load_study

    asked, path = load_study(study)
    folder = study_out(path, out)
    settings = [*(changes or []), *([f"engine.kind={engine}"] if engine else [])]
    if dry_run:
        from fedge.study.forecast import forecast_table

        Console().print(forecast_table(asked, path, folder, settings))
        return
    try:
        with _observer(quiet) as observer, interruptible(Observer()):
            result = run_study(
                asked, path, folder, jobs=jobs, settings=settings, watch=watch or (), observer=observer
            )
    except Stopped as stopped:
        print("fedge: stopped; what is done is kept: run the same command again", file=sys.stderr)
        raise typer.Exit(stopped.exit_code) from None
    if not quiet:
        _print(result.summary)
        print(f"results  {result.out}")


def _print(summary: Mapping[str, Any]) -> None:
    from fedge.study.table import terminal_table, verdicts

    Console().print(terminal_table(summary))
    for line in verdicts(summary):
        print(line)


@contextlib.contextmanager
def _observer(quiet: bool) -> "Iterator[StudyObserver]":
    from fedge.study.runner import StudyObserver
    from fedge.study.view import LiveStudy, PlainStudy

    if quiet:
        yield StudyObserver()
    elif Console(stderr=True).is_terminal:
        with (
            open(os.dup(sys.stderr.fileno()), "w", encoding="utf-8") as stream,
            LiveStudy(Console(file=stream)) as live,
        ):
            yield live
    else:
        yield PlainStudy()
