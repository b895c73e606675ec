"""Draw the README's pictures, of `fedge run quickstart`: what a terminal shows, and the head of the run's page.

    python docs/picture.py            # writes docs/images/quickstart.svg and, where there is Chromium, page.png

Both are of one run, made for them: rounds are printed as the command prints them, table and page are the command's own;
nothing is typed in by hand.
"""

import io
import re
import shutil
import subprocess
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
PAGE = PICTURE.parent / "page.png"
WIDTH = 88  # characters
PAGE_PIXELS = (900, 1325)  # down to the end of the second chart


class Recorder(Observer):
    """Prints a line per round, as the command does, on a console that remembers it."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def round_finished(self, figures: Mapping[str, Any]) -> None:
        self.notice(round_line(figures))

    def notice(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def draw(scenario: str = SCENARIO, picture: Path = PICTURE, page: Path = PAGE) -> None:
    """Run `scenario` and write `picture` and `page`."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(f"[bold green]$[/] fedge run {scenario}")
    picture.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result = fedge.run(scenario, Path(folder) / "run", observer=Recorder(console))
        photograph(result.out / "report.html", page)
    console.print(summary_table(result.summary, f"runs/{scenario}"))
    svg = console.export_svg(title=f"fedge run {scenario}", unique_id="fedge")
    picture.write_text(own_fonts(svg), encoding="utf-8")


def photograph(page: Path, picture: Path) -> None:
    """The head of an HTML file as a browser shows it; nothing without Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print(f"{picture} is as it was: there is no chromium here")
        return
    width, height = PAGE_PIXELS
    look = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={width},{height}",
    ]
    command = [chromium, *look, f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True)


def own_fonts(svg: str) -> str:
    """The picture with the reader's own monospaced font: rich would have it fetched from a server."""
    without = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return without.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")


if __name__ == "__main__":
    draw()
