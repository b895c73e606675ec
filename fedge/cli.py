"""The command line. Exit 0: done; 1: an audit found a leak; 2: the user's input is wrong; 3: the run failed;
130, 143: stopped (Ctrl-C, SIGTERM).

Errors are one line on stderr. `python -m fedge` is the same.
"""

import importlib.metadata
import os
import sys
from typing import Annotated, Any

import typer

from fedge.commands.attempt import try_command
from fedge.commands.audit import audit_command
from fedge.commands.cache import cache_app
from fedge.commands.export import export_command
from fedge.commands.fingerprint import fingerprint_command
from fedge.commands.import_data import import_app
from fedge.commands.listing import list_command
from fedge.commands.new import new_command
from fedge.commands.options import PlainCommand
from fedge.commands.plan import plan_command
from fedge.commands.report import report_command
from fedge.commands.run import run_command
from fedge.commands.show import show_command
from fedge.commands.study import study_command
from fedge.errors import FedgeError, RunError

_STOPPED = 130  # by SIGINT, as shells say it; a run also hears SIGTERM

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,  # plain text: [default: ...] is no markup
    pretty_exceptions_enable=False,
)

app.command("run", cls=PlainCommand)(run_command)
app.command("try", cls=PlainCommand)(try_command)
app.command("plan", cls=PlainCommand)(plan_command)
app.command("list", cls=PlainCommand)(list_command)
app.command("show", cls=PlainCommand)(show_command)
app.command("new", cls=PlainCommand)(new_command)
app.add_typer(import_app, name="import")
app.add_typer(cache_app, name="cache")
app.command("study", cls=PlainCommand)(study_command)
app.command("report", cls=PlainCommand)(report_command)
app.command("audit", cls=PlainCommand)(audit_command)
app.command("export", cls=PlainCommand)(export_command)
app.command("fingerprint", cls=PlainCommand)(fingerprint_command)


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
