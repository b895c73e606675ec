"""What a stream brought: what the fleet knew hour by hour, how much it could train on, what drifted and who noticed."""

from html import escape
from itertools import groupby
from operator import itemgetter
from typing import Any

from fedge.console.phases import percent
from fedge.page import html
from fedge.page.content import RunContent
from fedge.page.drawing.marks import HALF, Spec, amount, chart, colour, layer, line_at
from fedge.page.html import at, figure

NAMES = {
    "future": "near future",
    "ttt": "test, then train",
    "blind": "blind: the last label again",
    "past": "the first hours",
}
_MOST_ALARMS = 12  # hours that are told
_MOST_HOURS = 400  # points of a line


def section(run: RunContent) -> list[str]:
    """Where the data come in a stream."""
    if "stream" not in run.summary:
        return []
    told = (
        "Near future: held-out frames of the next interval. Blind: no look at a frame, the last label again; what an "
        "accuracy is worth is its distance from that."
    )
    share = "Replays count. A class below the others had no time for all the passes that the plan asks for."
    return [
        "<h2>What the stream brought</h2>",
        f"<p>{figure(run.summary, 'stream.arrived', html.count)} frames came; "
        f"{figure(run.summary, 'stream.trained_share', percent)} of them were trained on. Near-future accuracy is "
        f"<b>{figure(run.summary, 'stream.anytime', percent)}</b> over the rounds; test-then-train "
        f"{figure(run.summary, 'stream.ttt', percent)}, blind {figure(run.summary, 'stream.blind', percent)}.</p>",
        html.chart("stream", accuracy_over_hours(run), "What the fleet knew, hour by hour", told),
        html.chart("trained", trained_over_hours(run), "Who keeps up", share),
        *_drifts(run),
        *_alarms(run),
    ]


def _alarms(run: RunContent) -> list[str]:
    """Which hours' errors made devices' detectors speak; nothing where none looked."""
    if at(run.summary, "stream.alarms") is None:
        return []
    hours = [
        f"{html.count(figures['stream']['alarms'])} by hour {html.short(figures['stream']['hour'])}"
        for figures in run.rounds
        if at(figures, "stream.alarms")
    ]
    shown = ", ".join(hours[:_MOST_ALARMS]) + (", and later ones" if len(hours) > _MOST_ALARMS else "")
    told = f" ({shown})" if hours else ""
    return [
        f"<p>Devices' drift detectors found their own errors changed for the worse "
        f"{figure(run.summary, 'stream.alarms', html.count)} times{told}.</p>"
    ]


def _drifts(run: RunContent) -> list[str]:
    found = at(run.summary, "stream.drift")
    if not found:
        return []
    rows = [
        [
            escape(drift["what"]),
            escape(drift["kind"]),
            *(figure(run.summary, f"stream.drift.{place}.{key}", form) for key, form in _OF_A_DRIFT.items()),
        ]
        for place, drift in enumerate(found)
    ]
    head = ["drift", "kind", "from hour", "near future before", "at its worst", "back after, hours"]
    return [html.table(head, rows, left=2)]


_OF_A_DRIFT = {"at_h": html.short, "before": percent, "worst": percent, "recovered_h": html.short}


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
