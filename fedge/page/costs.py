"""Charts of what the rounds did: accuracy, the share of samples kept, parameters left, memory."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fedge.page.clients import MOST_NAMED, tells_errors
from fedge.page.content import RunContent
from fedge.page.drawing.marks import (
    COLOURS,
    FAINT,
    HALF,
    INK,
    Spec,
    amount,
    chart,
    colour,
    dash,
    layer,
    line_at,
    place,
    shape,
)

Row = Mapping[str, Any]


def accuracy_over_rounds(run: RunContent) -> Spec:
    """Mean and worst decile of the clients that reported, round by round, above the factory model and told; of their
    errors where numbers are asked for."""
    names = {"mean": "mean of clients", "worst_decile": "worst decile"}
    what = "error" if tells_errors(run.good) else "accuracy"
    rows = [
        {"round": figures["round"], "name": word, what: figures[what][key]}
        for figures in run.rounds
        for key, word in names.items()
        if figures[what][key] is not None
    ]
    there = run.summary[what]
    levels = {name: there[name] for name in ("factory", "told") if there.get(name) is not None}
    ends = _with_room(
        [*(row[what] for row in rows), *levels.values()], top=math.inf if what == "error" else 1.0
    )
    x, y = amount("round", "round", format="d"), amount(what, what, format=_FORMS[what], domain=ends)
    kinds = list(names.values())
    look = {"x": x, "y": y, "color": colour("name", kinds), "strokeDash": dash("name", kinds)}
    lines = layer(rows, "line", look, point=True, strokeWidth=2)
    marks = [
        mark
        for name, level in levels.items()
        for mark in line_at(level, name, axis="y", title=what, below=level < max(levels.values()))
    ]
    return chart(lines, *marks, width=HALF, height=220)


_FORMS = {"accuracy": ".1~%", "error": "~g"}


def _with_room(values: Sequence[float], *, top: float) -> tuple[float, float] | None:
    """From least to most with a tenth to spare on both sides, for the names of lines; within 0 and `top`."""
    if not values:
        return None
    least, most = min(values), max(values)
    room = 0.1 * (most - least) or 0.05 * (most or 1.0)
    return max(0.0, least - room), min(top, most + room)


def kept_over_rounds(run: RunContent) -> Spec | None:
    """Samples trained on of those offered, per device class; None where no filter ran."""
    seen: dict[tuple[int, str], list[int]] = {}
    for row in run.good:
        sums = seen.setdefault((row["round"], row["device"]), [0, 0])
        sums[0] += row["samples_kept"]
        sums[1] += row["samples_seen"]
    rows: list[dict[str, Any]] = [
        {"round": round, "device": device, "kept": kept / offered}
        for (round, device), (kept, offered) in sorted(seen.items())
        if offered
    ]
    if not any(row["kept"] < 1 for row in rows):
        return None
    title = "share of samples kept"
    x, y = amount("round", "round", format="d"), amount("kept", title, format=".1~%", domain=(0, 1))
    look = {"x": x, "y": y, "color": colour("device", run.classes), "strokeDash": dash("device", run.classes)}
    lines = layer(rows, "line", look, point=True, strokeWidth=2)
    target = run.scenario.get("training", {}).get("instance_filter", {}).get("keep")
    marks = [] if target is None else line_at(target, f"asked: {target:g}", axis="y", title=title)
    return chart(lines, *marks, width=HALF, height=220)


def parameters_left(run: RunContent) -> Spec | None:
    """Share of the network's parameters that a device has left, per client, or per class from least to most."""
    rows = [row for row in run.last if row.get("parameters_dense")]
    if not any(row["parameters"] < row["parameters_dense"] for row in rows):
        return None
    x = amount("left", "share of the network's parameters left", format=".1~%", domain=(0, 1))
    shares = [
        {
            "client": f"client {row['client']}",
            "device": row["device"],
            "left": row["parameters"] / row["parameters_dense"],
        }
        for row in rows
    ]
    if len(shares) <= MOST_NAMED:
        y = place("client", [row["client"] for row in shares])
        bars = layer(shares, "bar", {"y": y, "x": x, "color": colour("device", run.classes)})
        return chart(bars, width=HALF, height=max(60, 15 * len(shares)))
    ranges = [_range(name, [row["left"] for row in shares if row["device"] == name]) for name in run.classes]
    y = place("device", run.classes)
    ends = {end: {**x, "field": end} for end in ("least", "mean")}
    return chart(
        layer(
            ranges,
            "rule",
            {"y": y, "x": ends["least"], "x2": {"field": "most"}},
            color=FAINT,
            strokeWidth=6,
        ),
        layer(ranges, "point", {"y": y, "x": ends["mean"]}, color=COLOURS[0], filled=True, size=80),
        width=HALF,
        height=max(60, 30 * len(ranges)),
    )


def _range(name: str, values: Sequence[float]) -> dict[str, Any]:
    values = values or [0.0]
    return {"device": name, "least": min(values), "most": max(values), "mean": statistics.fmean(values)}


def memory(run: RunContent) -> Spec | None:
    """Peak training memory per device class: the most that was needed, what the plan asked for, what there is."""
    words = {
        "needed": "memory_bytes",
        "asked by the plan": "memory_asked_bytes",
        "the device has": "memory_limit_bytes",
    }
    rows = [
        {"device": name, "what": word, "bytes": max(row[field] for row in there)}
        for name in run.classes
        if (there := [row for row in run.reports if row["device"] == name and row.get("memory_limit_bytes")])
        for word, field in words.items()
        if max(row.get(field, 0) for row in there)
    ]
    if not rows:
        return None
    what = list(words)
    scales = {"color": colour("what", what, (COLOURS[0], COLOURS[3], INK)), "shape": shape("what", what)}
    look = {
        "y": place("device", run.classes),
        "x": amount("bytes", "memory (logarithmic)", format="B", log=True),
        **scales,
    }
    needed, asked = ([row for row in rows if row["what"] == word] for word in what[:2])
    there = [row for row in rows if row["what"] == what[2]]
    return chart(
        layer(asked, "point", look, filled=False, size=170, strokeWidth=2),
        layer([*needed, *there], "point", look, filled=True, size=70, opacity=1),
        width=HALF,
        height=max(70, 34 * len(run.classes)),
    )
