"""`fedge run`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedge.commands.options import Changes, ScenarioName, Watch
from fedge.errors import RunError


def run_command(
    scenario: ScenarioName,
    out: Annotated[Path | None, typer.Option(help="Folder of results [default: runs/<scenario>]")] = None,
    changes: Changes = None,
    engine: Annotated[str | None, typer.Option(metavar="ray|inline", help="Where the devices run.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last whole round in --out.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Drop an unfinished or different run that --out holds.")
    ] = False,
    watch: Watch = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Run a scenario to its end and write its results.

    SCENARIO: a name in scenarios/, or a TOML file.
    """
    from fedge.console.interrupt import Stopped, interruptible
    from fedge.console.progress import watching
    from fedge.console.table import summary_table
    from fedge.launch import default_out, draw_page, require_no_reports_asked, run_checked
    from fedge.scenario.load import load_scenario
    from fedge.watch.watchers import watched_by

    changes = [*(changes or []), *([f"engine.kind={engine}"] if engine else [])]
    loaded = load_scenario(scenario, changes)
    folder = default_out(loaded, out)
    try:
        with (
            watching(quiet, loaded.all_rounds) as seen,
            watched_by(watch or [], folder, seen) as told,
            interruptible(told) as observer,
        ):
            for watcher in getattr(told, "watchers", {}).values():
                require_no_reports_asked(loaded, watcher)
            result = run_checked(loaded, folder, resume=resume, overwrite=overwrite, observer=observer)
            draw_page(folder, observer.notice)
    except Stopped as stopped:
        raise typer.Exit(_said_how_to_go_on(folder, stopped.exit_code)) from None
    if not quiet:
        Console().print(summary_table(result.summary, result.out))
    if result.summary["never_reported"] == loaded.clients:
        log = "reports.jsonl" if loaded.privacy.whole_reports else "egress.jsonl"
        logs = any(result.out.glob("devices/*/errors.log"))
        raise RunError(
            f"no client's report ever counted: {result.out}/{log} says how each round ended"
            + (", devices/<client>/errors.log beside it why" if logs else "")
        )


def _said_how_to_go_on(folder: Path, exit_code: int) -> int:
    """Print the last line of a run that was stopped; its exit code."""
    from fedge.results.run_folder import rounds_held

    if rounds_held(folder):
        text = "stopped; the whole rounds are kept: run again with --resume"
    else:
        text = "stopped before the first round was whole: run again"
    print(f"fedge: {text}", file=sys.stderr)
    return exit_code
