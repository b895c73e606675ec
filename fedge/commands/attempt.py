"""`fedge try`."""

import json
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedge.commands.options import AsJson, Changes, ScenarioName
from fedge.errors import FedgeError, RunError, UserError


def try_command(
    scenario: ScenarioName,
    client: Annotated[int, typer.Option(metavar="N", help="Whose data and device.")] = 0,
    round: Annotated[
        int, typer.Option(metavar="N", help="As what round; in most scenarios the second prunes.")
    ] = 1,
    changes: Changes = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the device's folder and report [default: neither]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run one round of one client in this process, and show all of it.

    What programs print is shown, as is the whole traceback of what they raise; breakpoint() works. SCENARIO: a name in
    scenarios/, or a TOML file.
    """
    from fedge.console.progress import watched
    from fedge.console.table import trial_table
    from fedge.scenario.load import load_scenario

    loaded = load_scenario(scenario, changes or [])
    with _folder(out) as folder, _traced():
        with watched():
            from fedge.commands.trial import (  # brings torch, which takes its time
                data_for,
                require_there,
                try_client,
            )

            require_there(loaded, client, round)
            data = data_for(loaded)
        trial = try_client(loaded, data, folder, client=client, round=round)
        if out is not None:
            text = json.dumps(trial.row, indent=2) + "\n"
            (folder / "report.json").write_text(text, encoding="utf-8")
    if trial.trace:
        print(trial.trace.rstrip(), file=sys.stderr)
    if not trial.ok:
        raise RunError(f"client {client} has no report of round {round}: {trial.row['status']}")
    if as_json:
        print(json.dumps(trial.row, indent=2))
    else:
        Console().print(trial_table(trial.row, trial.phase, trial.sent_bytes, trial.received_bytes))


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Where the device's folder lies: in `out`, which must be empty, or in one that is gone afterwards."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="fedge-try-") as folder:
            yield Path(folder)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not an empty folder: give --out another one")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be made: {error.strerror}") from None
    yield out.absolute()


@contextmanager
def _traced() -> Iterator[None]:
    """Print the traceback of what the user's code raised, above the line that a run would leave at."""
    try:
        yield
    except FedgeError as error:
        cause = error.__cause__
        if cause is not None and not isinstance(cause, FedgeError):
            traceback.print_exception(cause)
        raise
