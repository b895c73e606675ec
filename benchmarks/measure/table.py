"""Markdown tables of measured rows: every committed page of results is made by these."""

from collections.abc import Iterable, Sequence
from statistics import mean, stdev

from benchmarks.measure.results import Row


def markdown(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A table; None is an empty cell."""
    cells = [heads, ["---"] * len(heads), *lines]
    return "\n".join(
        "| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in cells
    )


def table(rows: Iterable[Row], template: str) -> str:
    """A line per row. `template`: a Markdown line of heads, and one of the formats of the cells ('{step_ms:.1f}').

    A null is an empty cell.
    """
    heads, formats = (line.strip("| ").split(" | ") for line in template.strip().splitlines())
    return markdown(heads, ([_cell(form, row) for form in formats] for row in rows))


def _cell(form: str, row: Row) -> str:
    try:
        return form.format_map(row)
    except TypeError:  # how None answers a format of numbers
        return ""


def per_machine(rows: Iterable[Row], template: str, note: str) -> str:
    """`table` for each machine under what it is and `note`, whose fields come from the first row."""
    return "\n\n".join(
        f"{machine}; {note.format_map(here[0])}\n\n{table(here, template)}"
        for machine, here in by_machine(rows).items()
    )


def mean_std(values: Sequence[float], digits: int, scale: float = 1.0) -> str:
    """'mean ± standard deviation', both times `scale`; without the latter for one value, empty for none."""
    if not values:
        return ""
    spread = f" ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * mean(values):.{digits}f}{spread}"


def by_machine(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by what they were measured on: figures of two machines do not share a table."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(measured_on(row), []).append(row)
    return groups


def measured_on(row: Row) -> str:
    """The machine, versions, commit and date of a row, as far as they were written down."""
    versions = row.get("versions") or {}
    named = [
        row.get("machine") or "machine not written down",
        *(f"{name} {versions[name]}" for name in versions),
    ]
    named += [f"commit {row['commit']}"] if row.get("commit") else []
    return ", ".join([*named, row["date"]] if row.get("date") else named)
