"""Charts of a stream: what the fleet knew hour by hour, and how much it could train on what came."""

from itertools import groupby
from operator import itemgetter
from typing import Any

from fedge.page.content import RunContent
from fedge.page.drawing.marks import HALF, Spec, amount, chart, colour, layer, line_at

NAMES = {
    "future": "near future",
    "ttt": "test, then train",
    "blind": "blind: the last label again",
    "past": "the first hours",
}
_MOST_HOURS = 400  # points of a line


def accuracy_over_hours(run: RunContent) -> Spec | None:
    """Near-future and test-then-train accuracy beside the blind baseline; None without a stream."""
    rows = [
        {"hour": figures["stream"]["hour"], "name": word, "accuracy": figures["stream"][key]}
        for figures in _thinned(run)
        for key, word in NAMES.items()
        if figures["stream"][key] is not None
    ]
    if not rows:
        return None
    x, y = amount("hour", "virtual hours of the stream"), amount("accuracy", "accuracy", format=".0%")
    lines = layer(
        rows, "line", {"x": x, "y": y, "color": colour("name", list(NAMES.values()))}, strokeWidth=2
    )
    marks = [
        mark
        for drift in run.scenario["data"]["stream"].get("drift", ())
        for mark in line_at(drift["at_h"], drift["what"], axis="x", title="virtual hours of the stream")
    ]
    return chart(lines, *marks, height=260)


def trained_over_hours(run: RunContent) -> Spec | None:
    """Samples offered to training for each frame that came, up to each hour, per device class: replays count."""
    came: dict[str, list[int]] = {}
    rows: list[dict[str, Any]] = []
    by_round = {figures["round"]: figures["stream"]["hour"] for figures in _thinned(run)}
    for round, reports in groupby(run.good, key=itemgetter("round")):
        for row in reports:
            sums = came.setdefault(row["device"], [0, 0])
            sums[0] += row.get("samples_seen", 0)
            sums[1] += row.get("arrived", 0)
        if round in by_round:
            rows += [
                {"hour": by_round[round], "device": device, "trained": trained / arrived}
                for device, (trained, arrived) in came.items()
                if arrived
            ]
    if not rows:
        return None
    x = amount("hour", "virtual hours of the stream")
    y = amount("trained", "samples trained on per frame that came", format=".2f", zero=True)
    look = {"x": x, "y": y, "color": colour("device", run.classes)}
    return chart(layer(rows, "line", look, strokeWidth=2), width=HALF, height=220)


def _thinned(run: RunContent) -> list[Any]:
    """The rounds of a stream, some of them where there are very many."""
    rounds = [figures for figures in run.rounds if figures.get("stream") is not None]
    step = -(-len(rounds) // _MOST_HOURS) or 1
    return rounds[step - 1 :: step]
