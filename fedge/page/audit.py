"""What an audit found, as a section of its planted run's page; a page of its own where there was no such run."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from fedge.console.audit import ARM_HEADINGS, HEADINGS, arm_lines, known_lines, place_lines
from fedge.page import html
from fedge.page.run_page import run_page
from fedge.results.reading import AUDIT, read_json
from fedge.results.run_folder import SUMMARY

_RUN = Path("canaries") / "run"


def audit_page(folder: Path) -> str:
    """The HTML of the audit in `folder`. UserError where there is none, or a damaged one."""
    found = read_json(folder / AUDIT)
    said = section(found)
    if (folder / _RUN / SUMMARY).is_file():
        return run_page(folder / _RUN, *said)
    name = escape(str(found.get("scenario", "")))
    return html.document(f"{name}: audit", f"<h1>{name}</h1>", *said)


def section(found: Mapping[str, Any]) -> list[str]:
    """What leaks, measured: whose knowledge stands in which column, and by how many trials each figure is."""
    parts = ["<h2>What leaks, measured</h2>"]
    if canaries := found.get("canaries"):
        parts.append(f"<p>{_verdict(canaries)}</p>")
        parts.append(html.table(("place", "looked at", "found"), _cells(place_lines(found)), left=3))
    if lines := known_lines(found):
        parts.append(
            "<h3>What the observer knows, and what the server knows</h3><p>The observer is who runs the simulation and "
            "has every report. The server has what the scenario's <code>[privacy]</code> lets it have. 95 % "
            "confidence.</p>"
        )
        parts.append(html.table(HEADINGS, _cells(lines), left=len(HEADINGS)))
    if arms := arm_lines(found):
        parts.append("<h3>A stolen device: was a row trained on?</h3>")
        parts.append(html.table(ARM_HEADINGS, _cells(arms), left=len(ARM_HEADINGS)))
    skipped = found.get("skipped", {})
    parts += [f'<p class="note">{escape(part)}: {escape(why)}.</p>' for part, why in skipped.items()]
    return parts


def _verdict(canaries: Mapping[str, Any]) -> str:
    planted = f"{', '.join(canaries['planted'])}, among the training rows of client {canaries['client']}"
    if canaries["found"]:
        return f'<b class="harm">A canary is outside its device.</b> Planted: {planted}.'
    return f"<b>No canary is outside its device.</b> Planted: {planted}."


def _cells(lines: Any) -> list[list[str]]:
    return [[escape(cell) for cell in line] for line in lines]
