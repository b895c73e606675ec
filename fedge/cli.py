"""The command line. Exit 0: done; 2: the user's input is wrong; 3: the run failed; 130, 143: stopped (Ctrl-C, SIGTERM).

Errors are one line on stderr.
"""

import contextlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fedge.errors import FedgeError, RunError
from fedge.import_command import import_app

_STOPPED = 130  # by SIGINT, as shells say it; a run also hears SIGTERM

app = typer.Typer(
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: [default: ...] is no markup
    pretty_exceptions_enable=False,
)

app.add_typer(import_app, name="import")

# Arguments are explained in their command's docstring: click 8.5 drops the help that typer 0.20 gives them.
ScenarioName = Annotated[str, typer.Argument(metavar="SCENARIO", hidden=True)]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the scenario: --set training.pruning.level=0.5"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


@app.callback()
def bare_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False,
) -> None:
    """Simulate a fleet of edge devices that prune and retrain their own networks."""
    if version:
        print(f"fedge {importlib.metadata.version('fedge')}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command("run")
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
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Run a scenario to its end and write its results.

    SCENARIO: a name in scenarios/, or a TOML file.
    """
    from fedge.console.interrupt import Stopped, interruptible
    from fedge.console.table import summary_table
    from fedge.launch import default_out, run_checked
    from fedge.scenario.load import load_scenario

    changes = [*(changes or []), *([f"engine.kind={engine}"] if engine else [])]
    loaded = load_scenario(scenario, changes)
    folder = default_out(loaded, out)
    try:
        with _observer(loaded.rounds, quiet) as watching, interruptible(watching) as observer:
            result = run_checked(loaded, folder, resume=resume, overwrite=overwrite, observer=observer)
    except Stopped as stopped:
        raise typer.Exit(_said_how_to_go_on(folder, stopped.exit_code)) from None
    if not quiet:
        Console().print(summary_table(result.summary, result.out))
    if result.summary["never_reported"] == loaded.clients:
        logs = any(result.out.glob("devices/*/errors.log"))
        raise RunError(
            f"no client's report ever counted: {result.out}/reports.jsonl says how each round ended"
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


@app.command("plan")
def plan_command(scenario: ScenarioName, changes: Changes = None, as_json: AsJson = False) -> None:
    """Say what a scenario will cost before anything runs.

    Per device class. SCENARIO: a name in scenarios/, or a TOML file.
    """
    from fedge.console.table import plan_table
    from fedge.forecast import plan_scenario
    from fedge.scenario.load import left_out, load_scenario

    loaded = load_scenario(scenario, changes or [])
    plans = plan_scenario(loaded)
    for line in left_out(loaded):
        print(line, file=sys.stderr)
    if as_json:
        print(json.dumps(plans, indent=2))
    else:
        Console().print(plan_table(plans))


@app.command("list")
def list_command(
    kind: Annotated[str, typer.Argument(metavar="KIND", hidden=True)],
    as_json: AsJson = False,
) -> None:
    """List what a scenario can name.

    KIND: datasets, models, devices, partitions, clients or scenarios.
    """
    from fedge.console.table import rows_table
    from fedge.listing import listing

    rows = listing(kind)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        Console().print(rows_table(kind, rows))


@contextlib.contextmanager
def _observer(rounds: int, quiet: bool) -> Iterator[Any]:
    from fedge.console.observer import Observer
    from fedge.console.progress import LiveProgress, PlainProgress

    if quiet:
        yield Observer()
    elif Console(stderr=True).is_terminal:
        # a stream of its own: devices in this process print elsewhere while the bar goes on
        with (
            open(os.dup(sys.stderr.fileno()), "w", encoding="utf-8") as stream,
            LiveProgress(Console(file=stream), rounds) as live,
        ):
            yield live
    else:
        yield PlainProgress()


def main() -> None:
    """Entry point: every error a person can do something about ends as one line and an exit code."""
    try:
        exit_code = app(standalone_mode=False)  # None, or what typer.Exit carried
    except FedgeError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        exit_code = _STOPPED
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            _fail(_usage_line(error), 2)
        if os.environ.get("FEDGE_DEBUG"):
            raise
        _fail(
            f"{type(error).__name__}: {_one_line(error)} (FEDGE_DEBUG=1 shows the traceback)",
            RunError.exit_code,
        )
    sys.exit(exit_code)


def _usage_line(error: Any) -> str:
    """A usage error of click's; where a command was unknown, with those that there are."""
    text = str(error.format_message())
    if "No such command" not in text:
        return text
    return f"{text.partition(' Did you mean')[0]} There are {', '.join(error.ctx.command.commands)}."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _fail(text: str, exit_code: int) -> None:
    print(f"fedge: {text}", file=sys.stderr)
    sys.exit(exit_code)
