"""`fedge plan`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedge.catalog.fingerprint import parse_fingerprint, read_fingerprint
from fedge.commands.options import AsJson, Changes, ScenarioName


def plan_command(
    scenario: ScenarioName,
    changes: Changes = None,
    as_json: AsJson = False,
    fingerprint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also say what simulating takes here, by this machine's fingerprint."
        ),
    ] = None,
) -> None:
    """Say what a scenario will cost before anything runs.

    Per device class. SCENARIO: a name in scenarios/, or a TOML file.
    """
    from fedge.console.progress import watched
    from fedge.console.table import plan_table
    from fedge.privacy.noise.forecast import noise_told
    from fedge.scenario.load import left_out, load_scenario

    loaded = load_scenario(scenario, changes or [])
    here = None if fingerprint is None else read_fingerprint(fingerprint)
    with watched():
        from fedge.forecast import plan_scenario  # brings torch, which takes its time

        plans = plan_scenario(loaded, here)
    if here is not None:
        _say_where(here, str(fingerprint))
    for line in (*left_out(loaded), *noise_told(loaded)):
        print(line, file=sys.stderr)
    if as_json:
        print(json.dumps(plans, indent=2))
    else:
        Console().print(plan_table(plans))


def _say_where(text: str, name: str) -> None:
    """Where the fingerprint is another machine's, or of another torch: a line on stderr."""
    from fedge.training.time.learn import this_machine

    if different := parse_fingerprint(text).differences(this_machine()):
        print(
            f"{name} is not this machine's ({'; '.join(different)}): its seconds are that one's",
            file=sys.stderr,
        )
