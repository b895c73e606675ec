"""`fedge show`."""

from typing import Annotated

import typer

from fedge.catalog.files import shipped_names, shipped_path
from fedge.catalog.text import read_text


def shipped_like(incomplete: str) -> list[str]:
    """What is shipped and begins so."""
    return [name for name in shipped_names() if name.startswith(incomplete)]


def show_command(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True, autocompletion=shipped_like)],
) -> None:
    """Print a scenario, a study, a client program or a policy that fedge ships, below the path of its file.

    NAME: as `fedge list scenarios`, `studies`, `clients` or `policies` shows it; `fedge show edge > my.py` copies.
    """
    path = shipped_path(name)
    print(f"# {path}\n{read_text(path)}", end="")
