"""`fedge cache`: what is prepared, and making room."""

import json
import re
import sys
import time
from typing import Annotated

import typer
from rich.console import Console

from fedge.cache import Entry, clear, entries, prepared_folder, select
from fedge.commands.options import AsJson, PlainCommand
from fedge.errors import UserError

cache_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

_UNIT_S = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@cache_app.callback()
def bare_cache(context: typer.Context) -> None:
    """List or clear divided data and factory models, which any run makes again where they are missing."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@cache_app.command("list", cls=PlainCommand)
def cache_list(as_json: AsJson = False) -> None:
    """Say what is prepared, for which scenario, how large it is, and when it was used."""
    from fedge.console.progress import watched
    from fedge.console.table import rows_table

    with watched():
        found = entries()
    if as_json:
        print(json.dumps([_row(entry) for entry in found], indent=2))
    elif not found:
        print(f"nothing is prepared in {prepared_folder()}")
    else:
        Console().print(rows_table("cache", [_shown(entry) for entry in found]))
        print(f"{_size(sum(entry.size_bytes for entry in found))} in {prepared_folder()}")


def _row(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "scenario": entry.scenario,
        "size_bytes": entry.size_bytes,
        "age_s": max(0.0, time.time() - entry.made_s),
        "unused_s": max(0.0, time.time() - entry.used_s),
        "in_use": entry.in_use,
        "folder": str(entry.folder),
    }


def _shown(entry: Entry) -> dict[str, object]:
    now_s = time.time()
    return {
        "name": entry.name,
        "scenario": entry.scenario,
        "size": _size(entry.size_bytes),
        "age": _ago(now_s - entry.made_s),
        "last used": "in use" if entry.in_use else f"{_ago(now_s - entry.used_s)} ago",
    }


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:,.1f} GB"


def _ago(time_s: float) -> str:
    """The largest unit that it fills: "3 d", "2 h", "5 min"."""
    for name, unit_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if time_s >= unit_s:
            return f"{time_s // unit_s:.0f} {name}"
    return f"{max(0.0, time_s):.0f} s"


def prepared_like(incomplete: str) -> list[str]:
    """The prepared folders that begin so."""
    return [entry.name for entry in entries() if entry.name.startswith(incomplete)]


@cache_app.command("clear", cls=PlainCommand)
def cache_clear(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", hidden=True, autocompletion=prepared_like)
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="30d", help="Only what was not used for so long: m, h, d or w."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what is prepared, or what of it is named. What a run is using is refused.

    NAME: as `fedge cache list` shows it.
    """
    from fedge.console.progress import watched

    with watched():
        chosen = select(names or (), None if older_than is None else _duration_s(older_than))
    if not chosen:
        print("nothing to clear")
        return
    size = _size(sum(entry.size_bytes for entry in chosen))
    if not yes:
        _ask(f"remove {len(chosen)} prepared folders, {size}?")
    with watched():
        freed = clear(chosen)
    print(f"{len(chosen)} prepared folders removed, {_size(freed)} freed")


def _ask(question: str) -> None:
    """Go on where the person agrees; typer.Abort where not."""
    if not sys.stdin.isatty():
        raise UserError(f"{question} Nobody is here to be asked: say --yes")
    typer.confirm(question, abort=True)


def _duration_s(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip())
    if not found:
        raise UserError(f"--older-than is {text!r}; it is a number and a unit: 90m, 12h, 30d or 2w")
    return float(found[1]) * _UNIT_S[found[2]]
