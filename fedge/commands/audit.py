"""`fedge audit`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedge.commands.options import AsJson, Changes, ScenarioName

_FOUND = 1  # the exit code where a canary is outside its device


def audit_command(
    scenario: ScenarioName,
    out: Annotated[Path | None, typer.Option(help="Folder of results [default: audits/<scenario>]")] = None,
    changes: Changes = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="PART", help="canaries, reports, property or membership [default: all]"
        ),
    ] = None,
    clients: Annotated[
        int, typer.Option(metavar="N", help="Of a large fleet, that take part in all but the first part.")
    ] = 12,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Processes side by side [default: one per core]", min=1)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what leaks: canaries, one-run audit, property inference, membership.

    Exit 1 where a canary is found outside its device. SCENARIO: a name in scenarios/, or a TOML file. How long it will
    take is said first: quickstart a minute or two on two cores.
    """
    from fedge.console.audit import audit_tables
    from fedge.console.progress import watched
    from fedge.page.page import draw_beside
    from fedge.scenario.load import load_scenario

    loaded = load_scenario(scenario, changes or [])
    folder = (out or Path("audits") / loaded.name).expanduser().absolute()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with watched():
        from fedge.audit.audit import PARTS, Ask, audit  # brings torch, which takes its time
        from fedge.page.audit import audit_page

        found = audit(loaded, folder, Ask(tuple(only or PARTS), clients, jobs), say)
    draw_beside(folder, lambda: audit_page(folder), say)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        console = Console()
        for table in audit_tables(found):
            console.print(table)
        print(folder)
    if found.get("canaries", {}).get("found"):
        raise typer.Exit(_FOUND)
