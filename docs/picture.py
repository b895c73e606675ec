"""Draw the README's picture: what a terminal shows of `fedge run quickstart`, from a run made for it.

    python docs/picture.py            # writes docs/images/quickstart.svg

Rounds are printed as the command prints them and the table is the command's own; nothing is typed in by hand.
"""

import io
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

import fedge
from fedge.console.observer import Observer
from fedge.console.progress import round_line
from fedge.console.table import summary_table

SCENARIO = "quickstart"
PICTURE = Path(__file__).parent / "images" / f"{SCENARIO}.svg"
WIDTH = 88  # characters


class Recorder(Observer):
    """Prints a line per round, as the command does, on a console that remembers it."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def round_finished(self, figures: Mapping[str, Any]) -> None:
        self.notice(round_line(figures))

    def notice(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def draw(scenario: str = SCENARIO, picture: Path = PICTURE) -> None:
    """Run `scenario` and write `picture`."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(f"[bold green]$[/] fedge run {scenario}")
    with tempfile.TemporaryDirectory() as folder:
        result = fedge.run(scenario, Path(folder) / "run", observer=Recorder(console))
    console.print(summary_table(result.summary, f"runs/{scenario}"))
    picture.parent.mkdir(parents=True, exist_ok=True)
    svg = console.export_svg(title=f"fedge run {scenario}", unique_id="fedge")
    picture.write_text(own_fonts(svg), encoding="utf-8")


def own_fonts(svg: str) -> str:
    """The picture with the reader's own monospaced font: rich would have it fetched from a server."""
    without = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return without.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")


if __name__ == "__main__":
    draw()
