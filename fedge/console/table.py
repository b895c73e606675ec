"""The table at a run's end: what it brought and what it cost."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from rich.table import Table

from fedge.console.phases import percent


def summary_rows(summary: Mapping[str, Any], out: object) -> list[tuple[str, str]]:
    """summary.json for a person: figures and their values, the same on a terminal, in print and in a notebook."""
    accuracy, macs, egress = summary["accuracy"], summary["macs"], summary["egress"]
    gain, hurt = summary["gain"], summary["hurt"]
    return [
        ("factory model's accuracy", percent(accuracy["factory"])),
        *_told("told the client's classes", percent(accuracy["told"])),
        ("accuracy after", _plus_minus(accuracy)),
        *_noise(summary),
        ("worst decile", percent(accuracy["worst_decile"])),
        ("gain over the factory model", f"{points(gain['mean'])}{_interval(gain['interval'])}"),
        *_told("gain over told", points(gain["over_told"])),
        *_errors(summary),
        ("clients hurt", f"{percent(hurt['any'])} (beyond chance {percent(hurt['beyond_chance'])})"),
        *_served(summary),
        *_unseen(summary),
        ("MACs saved against dense", percent(macs["saved"])),
        ("parameters left", percent(summary["parameters_left"])),
        *_virtual(summary),
        ("left the devices", f"{egress['messages']} messages, {egress['bytes']:,} bytes"),
        ("of a program's choosing", f"at most {egress['bits_at_most']:,} bits a report"),
        ("failed client rounds", str(summary["failures"])),
        *_own_figures(summary),
        *_stream(summary),
        *_never_reported(summary),
        ("wall clock", f"{summary['wall_s']:.1f} s"),
        ("results", str(out)),
    ]


def _plus_minus(accuracy: Mapping[str, Any]) -> str:
    """The mean and, where it is known, how accuracy is spread."""
    spread = accuracy.get("std")
    return percent(accuracy["mean"]) + ("" if spread is None else f" ± {percent(spread)}")


def _noise(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the figures above are off by on purpose, and what they have told of a client."""
    noise = summary["privacy"].get("noise") if "privacy" in summary else None
    if noise is None:
        return []
    told = f"epsilon {noise['epsilon']:.3g} at delta {noise['delta']:g}"
    real = ", FOR TESTS: it hides nothing" if noise.get("for_tests") else ""
    return [("noise on each mean", f"± {100 * noise['sd']:.2g} pp (one sd), {told}{real}")]


def _virtual(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Virtual time and energy; where the server sees sums alone, all devices' time, for a round's is its slowest's."""
    rows = {
        "virtual time": (summary["time_s"], "s"),
        "virtual time of all devices": (summary.get("device_time_s"), "s"),
    }
    rows["virtual energy"] = (summary["energy_j"], "J")
    return [(name, f"{value:,.1f} {unit}") for name, (value, unit) in rows.items() if value is not None]


def _stream(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What of a stream came of it; nothing without one."""
    stream = summary.get("stream")
    if stream is None:
        return []
    rows = [
        ("near-future accuracy, over the rounds", percent(stream["anytime"])),
        ("test-then-train (blind)", f"{percent(stream['ttt'])} ({percent(stream['blind'])})"),
        ("frames that came, trained on", f"{stream['arrived']:,}, {percent(stream['trained_share'])}"),
        ("forgotten of the first hours", points(stream["forgetting"])),
    ]
    if "alarms" in stream:
        rows.append(("changes that devices detected", f"{stream['alarms']:,}"))
    for drift in stream["drift"]:
        back = "not back" if drift["recovered_h"] is None else f"back after {drift['recovered_h']:g} h"
        fell = f"{percent(drift['before'])} to {percent(drift['worst'])}, {back}"
        rows.append((f"{drift['what']} at {drift['at_h']:g} h", fell))
    return rows


def summary_table(summary: Mapping[str, Any], out: object) -> Table:
    """The rows as a table for a terminal."""
    return _figures(_title(summary), summary_rows(summary, out))


def summary_text(summary: Mapping[str, Any], out: object) -> str:
    """The same as plain text."""
    rows = summary_rows(summary, out)
    width = max(len(name) for name, _ in rows)
    return "\n".join([_title(summary), *(f"  {name:<{width}}  {value}" for name, value in rows)])


def summary_html(summary: Mapping[str, Any], out: object) -> str:
    """The same as an HTML table."""
    cell = '<td style="text-align: {side}">{text}</td>'
    rows = (
        f"<tr>{cell.format(side='left', text=escape(name))}{cell.format(side='right', text=escape(value))}</tr>"
        for name, value in summary_rows(summary, out)
    )
    return f"<table><caption>{escape(_title(summary))}</caption>{''.join(rows)}</table>"


def _title(summary: Mapping[str, Any]) -> str:
    return f"{summary['scenario']}: {summary['clients']} clients, {summary['rounds']} rounds"


def _figures(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right", overflow="fold")  # a long path is to be copied
    for name, value in rows:
        table.add_row(name, value)
    return table


def trial_table(row: Mapping[str, Any], phase: str, sent_bytes: int, received_bytes: int) -> Table:
    """One client's report of one round for a person, as `fedge try` has it."""
    tested = row["test_count"] * row.get("decisions", 1) or None
    right = {
        name: tested and percent(row[f"{name}_correct"] / tested)
        for name in ("factory", "told", "test")
        if f"{name}_correct" in row
    }
    ran = [row[kind] for kind in ("criterion", "instance_filter", "error_maps") if row[kind] != "none"]
    own = [(key.removeprefix("own."), f"{row[key]:g}") for key in row if key.startswith("own.")]
    rows = [
        ("phase", phase),
        ("factory model's accuracy", right["factory"] or "-"),
        *([("told the client's classes", right["told"] or "-")] if "told" in right else []),
        ("accuracy after", f"{right['test']} of {row['test_count']} test samples" if tested else "-"),
        *_trial_errors(row),
        ("mean training loss", f"{row['train_loss']:.4g}" if "train_loss" in row else "of too few samples"),
        ("samples trained on", f"{row['samples_kept']:,} of {row['samples_seen']:,}"),
        ("optimizer; methods", f"{row['optimizer']}; {', '.join(ran) or 'none'}"),
        ("parameters left", percent(row["parameters"] / max(1, row["parameters_dense"]))),
        ("MACs", f"{row['macs_done']:.4g}"),
        ("MACs, dense", f"{row['macs_dense']:.4g}"),
        ("saved", percent(1 - row["macs_done"] / row["macs_dense"]) if row["macs_dense"] else "-"),
        ("memory needed / there is", f"{_mb(row['memory_bytes'])} / {_mb(row['memory_limit_bytes'])}"),
        ("virtual time", f"{row['time_s']:.3g} s"),
        ("virtual energy", f"{row['energy_j']:.3g} J"),
        ("came and left", f"{received_bytes:,} and {sent_bytes:,} bytes"),
        *own,
        ("wall clock", f"{row['wall_s']:.2f} s"),
    ]
    return _figures(f"client {row['client']} on {row['device']}, round {row['round']}", rows)


def _trial_errors(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Mean absolute errors of one report, where numbers are asked for."""
    if "test_error_sum" not in row or not row["test_count"]:
        return []
    errors = {name: row[f"{name}_error_sum"] / row["test_count"] for name in ("factory", "test")}
    return [
        ("factory model's mean absolute error", f"{errors['factory']:.4g}"),
        ("mean absolute error after", f"{errors['test']:.4g}"),
    ]


def points(difference: float | None) -> str:
    """A difference of two accuracies, 0.0312 as "+3.1 pp" (percentage points); a dash where there is no figure."""
    return "-" if difference is None else f"{100 * difference:+.1f} pp"


def _told(name: str, figure: str) -> list[tuple[str, str]]:
    """A line where there are classes to be told."""
    return [] if figure == "-" else [(name, figure)]


def _served(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Whose networks serve, where that may be others than the last round's."""
    if "served" not in summary:
        return []
    counts = summary["served"]
    said = f"{counts['last']} by the last round's network, {counts['earlier']} by an earlier one's"
    return [("clients served", f"{said}, {counts['factory']} by the factory model")]


def _unseen(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What clients have that nobody learns from, where there are any."""
    if "unseen" not in summary:
        return []
    later = summary["unseen"]
    gain = f"{points(later['gain']['mean'])}{_interval(later['gain']['interval'])}"
    return [(f"{later['clients']} unseen clients", f"{percent(later['accuracy']['mean'])}, gain {gain}")]


def _errors(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lines of how far off the answers are, where numbers are asked for."""
    error = summary.get("error")
    if error is None or error["mean"] is None:
        return []
    if error["std"] is None:  # of sums
        after = ("mean absolute error after", f"{error['mean']:.4g}")
        return [("factory model's mean absolute error", f"{error['factory']:.4g}"), after]
    saved = summary["gain"]["error"]
    interval = "" if saved["interval"] is None else " [{:+.3g}, {:+.3g}]".format(*saved["interval"])
    return [
        ("factory model's mean absolute error", f"{error['factory']:.4g}"),
        ("mean absolute error after", f"{error['mean']:.4g} ± {error['std']:.3g}"),
        ("worst decile of the error", f"{error['worst_decile']:.4g}"),
        ("error saved against the factory model", f"{saved['mean']:+.3g}{interval}"),
    ]


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else " [{:+.1f}, {:+.1f}]".format(*(100 * end for end in interval))


def _own_figures(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A line per figure of the program's own."""
    own = summary.get("own", {})
    spread = {
        name: "" if figure["std"] is None else f" ± {figure['std']:.3g}" for name, figure in own.items()
    }
    return [(name, f"{figure['mean']:.4g}{spread[name]}") for name, figure in own.items()]


def _never_reported(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A line where clients are missing from every mean above."""
    silent = summary["never_reported"]
    return [("clients that never reported", f"{silent} of {summary['clients']}")] if silent else []


def rows_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows that share their keys, a column per key; of wide kinds those that fit 80 characters."""
    columns = _COLUMNS.get(title) or {key: key for key in rows[0]}
    table = Table(title=title)
    for key, heading in columns.items():
        numeric = isinstance(rows[0][key], int | float)
        table.add_column(
            heading, justify="right" if numeric else "left", overflow="fold", no_wrap=not table.columns
        )
    for row in rows:
        table.add_row(*(_cell(row[key]) for key in columns))
    return table


_COLUMNS = {  # kind of list -> key: heading; `--json` has the rest
    "devices": {
        "name": "name",
        "train_gflops": "GFLOP/s",
        "memory_mb": "memory MB",
        "memory_gbs": "GB/s",
        "down_mbps": "Mbit/s down",
        "load_w": "load\nW",
        "battery_wh": "battery Wh",
    },
    "datasets": {
        "name": "name",
        "title": "title",
        "num_classes": "classes",
        "size": "rows",
        "files": "files",
    },
}


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def plan_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What `fedge plan` prints: a column per device class."""
    table = Table(
        title="one round of a mean client, after pruning", caption="estimates: docs/methods/devices.md"
    )
    table.add_column("per client")
    for row in rows:
        table.add_column(f"{row['class']} x {row['clients']}", justify="right")
    lines: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "memory needed / there is": lambda row: (
            f"{_mb(row['memory_need_bytes'])} / {_mb(row['memory_have_bytes'])}"
        ),
        "fits": lambda row: "yes" if row["fits"] else "no: declines",
        "training samples": lambda row: f"{row['samples']:,}",
        "pruning level": lambda row: "found on the device" if row["level"] is None else f"{row['level']:.2f}",
        "parameters left": lambda row: percent(row["parameters_left"]),
        "MACs": lambda row: f"{'some ' if row.get('macs_estimated') else ''}{row['macs_done']:.3g}",
        "MACs, dense": lambda row: f"{row['macs_dense']:.3g}",
        "saved": lambda row: percent(1 - row["macs_done"] / row["macs_dense"]),
        "virtual time": lambda row: f"{row['time_s']:.3g} s",
        "virtual energy": lambda row: f"{row['energy_j']:.3g} J",
        "program's choice of a report": lambda row: f"at most {row['sent_bits_at_most']:,} bits",
        **_adapting(rows),
        **_learnt(rows),
        **_keeping_up(rows),
        **_regrowing(rows),
        "Ray host": lambda row: f"{row['host_cpus']:g} CPU, {row['host_memory_mb']:.0f} MB",
    }
    for name, cell in lines.items():
        table.add_row(name, *(cell(row) for row in rows))
    return table


def _adapting(rows: Sequence[Mapping[str, Any]]) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """What a label prior and shipped features take; nothing where no class has any."""
    found: dict[str, Callable[[Mapping[str, Any]], str]] = {}
    if any("prior_macs" in row for row in rows):
        found["to find its label prior"] = lambda row: f"{row.get('prior_macs', 0):.3g} MACs"
    if any("shipped_bytes" in row for row in rows):
        found["shipped beside the network"] = lambda row: f"{row.get('shipped_bytes', 0):,} bytes"
    return found


def _learnt(rows: Sequence[Mapping[str, Any]]) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """Where a class's seconds come from, and those of the machine that simulates; nothing without a fingerprint."""
    lines: dict[str, Callable[[Mapping[str, Any]], str]] = {}
    if any("time_learnt_on" in row for row in rows):
        lines["time learnt on"] = lambda row: str(row.get("time_learnt_on", "nothing: two constants"))
    if any("here_s" in row for row in rows):
        lines["takes here"] = lambda row: f"{row['here_s']:.3g} s"
    return lines


def _keeping_up(rows: Sequence[Mapping[str, Any]]) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """The rate at which a stream comes against what a class can train; nothing without one."""
    if not rows or "frames_train_per_s" not in rows[0]:
        return {}
    return {
        "frames that come": lambda row: _per_s(row["frames_come_per_s"]),
        "frames it can train": lambda row: _per_s(row["frames_train_per_s"]),
        "passes asked / there is time for": lambda row: (
            f"{row['passes_asked']} / {row['passes_in_time']:,.3g}"
        ),
    }


def _regrowing(rows: Sequence[Mapping[str, Any]]) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """What a round takes at most of a device that grows back; nothing where none does."""
    if not rows or "regrow_macs" not in rows[0]:
        return {}
    return {
        "a round that regrows, at most": lambda row: f"{row['regrow_macs']:.3g} MACs",
        "its time and energy": lambda row: f"{row['regrow_time_s']:.3g} s, {row['regrow_energy_j']:.3g} J",
    }


def _per_s(rate_hz: float | None) -> str:
    return "by the trace" if rate_hz is None else f"{rate_hz:,.3g} per s"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.3g} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:,.3g} GB"
