"""The table at a run's end: what it brought and what it cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from fedge.report.progress import percent


def summary_table(summary: Mapping[str, Any], out: object) -> Table:
    """summary.json for a person."""
    accuracy, macs, egress = summary["accuracy"], summary["macs"], summary["egress"]
    table = Table(title=f"{summary['scenario']}: {summary['clients']} clients, {summary['rounds']} rounds")
    table.add_column("figure")
    table.add_column("value", justify="right")
    rows = [
        ("factory model's accuracy", percent(accuracy["factory"])),
        ("accuracy after", f"{percent(accuracy['mean'])} ± {percent(accuracy['std'])}"),
        ("worst decile", percent(accuracy["worst_decile"])),
        ("MACs saved against dense", percent(macs["saved"])),
        ("parameters left", percent(summary["parameters_left"])),
        ("virtual time", f"{summary['time_s']:,.1f} s"),
        ("virtual energy", f"{summary['energy_j']:,.1f} J"),
        ("left the devices", f"{egress['messages']} messages, {egress['bytes']:,} bytes"),
        ("failed client rounds", str(summary["failures"])),
        ("wall clock", f"{summary['wall_s']:.1f} s"),
        ("results", str(out)),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def rows_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows that share their keys, one column per key."""
    table = Table(title=title)
    for key in rows[0] if rows else ():
        table.add_column(key, justify="right" if isinstance(rows[0][key], int | float) else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
