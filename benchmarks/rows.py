"""Results as lines of JSON, one per finished cell, so that a broken run goes on where it stopped."""

import json
from pathlib import Path
from typing import Any


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The finished cells; a line that a crash cut short is left out. No file: none."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def take_up(path: Path) -> list[dict[str, Any]]:
    """`read_rows` of the file to go on with, which then holds whole lines only."""
    rows = read_rows(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def append_row(path: Path, row: dict[str, Any]) -> None:
    with path.open("a") as lines:
        lines.write(json.dumps(row) + "\n")
