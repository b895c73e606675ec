"""The page's pieces: figures that say where they come from, charts with their data, tables, and the whole document."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from fedge.page.drawing.draw import draw

Row = Mapping[str, Any]
Form = Callable[[Any], str]

_CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #222; background: #fff;
  max-width: 860px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 2px; } h2 { font-size: 18px; margin: 34px 0 4px; }
h3 { font-size: 14px; margin: 14px 0 2px; }
p { margin: 6px 0; max-width: 70ch; } .under, .note { color: #666; font-size: 13px; }
.answer { font-size: 17px; margin: 14px 0 18px; } .answer b { font-weight: 650; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; margin: 14px 0; }
.tile { border: 1px solid #ddd; border-radius: 6px; padding: 8px 12px 10px; break-inside: avoid; }
.tile .name { font-size: 12px; color: #555; } .tile .value { font-size: 22px; font-weight: 600; white-space: nowrap; }
.tile .against { font-size: 12px; color: #555; }
.harm { border-color: #D55E00; border-left-width: 5px; } .harm .value, b.harm, td.harm { color: #B34700; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 6px 24px; align-items: start; }
figure { margin: 4px 0 10px; break-inside: avoid; } svg { display: block; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 12.5px; margin: 8px 0; width: 100%; }
th, td { padding: 3px 8px; border-bottom: 1px solid #e4e4e4; text-align: left; vertical-align: top; }
th { font-weight: 600; color: #444; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.group { padding-top: 10px; color: #222; } code { font-size: 12px; }
pre { font-size: 12px; background: #f6f6f6; padding: 10px 12px; overflow-x: auto; border-radius: 4px; }
summary { cursor: pointer; font-weight: 600; margin: 10px 0; }
@media (max-width: 700px) { .tiles { grid-template-columns: 1fr 1fr; } .pair { grid-template-columns: 1fr; } }
@page { size: A4; margin: 14mm 15mm 16mm; }
@media print { body { max-width: none; padding: 0; font-size: 9.5pt; } p { max-width: none; orphans: 3; widows: 3; }
  h1, h2, h3, .note { break-after: avoid; } h2 { margin-top: 18px; } .answer { font-size: 11pt; }
  .tiles { grid-template-columns: repeat(4, 1fr); gap: 6px; } .tile .value { font-size: 14pt; }
  .pair { grid-template-columns: 1fr 1fr; } .tile, figure, tr, pre { break-inside: avoid; }
  figure svg { max-height: 215mm; } .scroll { overflow: visible; } table { font-size: 8pt; }
  thead { display: table-header-group; }
  td, th { padding: 2px 5px; overflow-wrap: anywhere; } th.group { break-after: avoid; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 7.5pt; }
  details:not([open]) { display: none; } details > summary { list-style: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def at(found: Row, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    value: Any = found
    for key in path.split("."):
        if isinstance(value, list | tuple) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, Mapping):
            value = value.get(key)
        else:
            return None
    return value


def figure(found: Row, path: str, form: Form) -> str:
    """A figure of `found` as text, marked with its exact value and its place."""
    value = at(found, path)
    if value is None:
        return "-"
    exact = escape(json.dumps(value), quote=True)
    return f'<data value="{exact}" data-from="{escape(path, quote=True)}">{escape(form(value))}</data>'


def interval(found: Row, path: str) -> str:
    """Both ends of an interval of gains, in percentage points; "" where there is none."""
    if at(found, path) is None:
        return ""
    low, high = (figure(found, f"{path}.{end}", signed) for end in (0, 1))
    return f"[{low}, {high}]"


def signed(value: float) -> str:
    """A gain of 0.031 as "+3.1"."""
    return f"{100 * value:+.1f}"


def short(value: float) -> str:
    """Three figures that count: 3,120,000 as "3.12 M"."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{value / (1e3 if size == 1e4 else size):.3g}{unit}"
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes, by 1,000: 15,312 as "15.3 kB"."""
    return f"{value:,.0f} bytes" if value < 1e4 else f"{short(value)}B"


def count(value: float) -> str:
    return f"{value:,.0f}"


def tile(name: str, value: str, against: str = "", *, harm: bool = False) -> str:
    """One of the figures below the first paragraph, and what it stands against."""
    return (
        f'<div class="tile{" harm" if harm else ""}"><div class="name">{escape(name)}</div>'
        f'<div class="value">{value}</div><div class="against">{against}</div></div>'
    )


def chart(name: str, spec: Mapping[str, Any] | None, title: str, note: str = "") -> str:
    """A chart under its title, with its specification beside it as data; "" where there is none."""
    if spec is None:
        return ""
    data = json.dumps(spec, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return (
        f'<figure id="{name}"><h3>{escape(title)}</h3>{said}{draw(name, spec)}'
        f'<script type="application/json" data-chart="{name}">{data}</script></figure>'
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Cells are HTML already; the first `left` columns are text, the others numbers."""
    kinds = ["" if index < left else ' class="number"' for index in range(len(headings))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, headings, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def grouped(headings: Sequence[str], groups: Iterable[tuple[str, Iterable[Sequence[str]]]]) -> str:
    """A table whose rows stand in groups under a line of their own. Cells and lines are HTML already."""
    head = "".join(f"<th>{escape(name)}</th>" for name in headings)
    bodies = []
    for title, rows in groups:
        lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        bodies.append(
            f'<tbody><tr><th colspan="{len(headings)}" class="group">{title}</th></tr>{lines}</tbody>'
        )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>{"".join(bodies)}</table></div>'


def details(title: str, inside: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inside}</details>" if inside else ""


def document(title: str, *parts: str) -> str:
    """The whole file."""
    body = "\n".join(part for part in parts if part)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<style>{_CSS}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
