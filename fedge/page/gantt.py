"""The run in virtual time: which device computed, sent, waited or failed when, and where each round ended."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedge.page.clients import MOST_NAMED
from fedge.page.content import RunContent
from fedge.page.drawing.marks import COLOURS, HARM, INK, Spec, amount, chart, colour, layer, place, shape

MOST_ROUNDS = 12
PHASES = {"plan comes": COLOURS[4], "computes": COLOURS[0], "report leaves": COLOURS[3], "waits": "#E3E3E3"}

Row = Mapping[str, Any]


def gantt(run: RunContent) -> Spec | None:
    """None where the reports do not say how their time was spent (of earlier versions), or where none counts."""
    rounds = run.rounds[:MOST_ROUNDS]
    timed = [row for row in run.reports if "down_s" in row]
    if not timed or not any(figures["time_s"] for figures in rounds):
        return None
    shown, starts = shown_clients(run), _starts(run, rounds)
    names = [name for _, name in shown]
    by_client = dict(shown)
    deadline_s = run.scenario.get("selection", {}).get("deadline_s")
    bars, faults = [], []
    for row in run.reports:
        if row["client"] not in by_client or row["round"] not in starts:
            continue
        start_s, length_s = starts[row["round"]]
        where = {"client": by_client[row["client"]]}
        if "down_s" in row:
            bars += [where | bar for bar in spans(row, start_s, length_s)]
        if row["status"] != "ok":
            at_s = start_s + row.get("time_s", length_s / 2)
            faults.append(where | {"at": at_s, "status": row["status"].replace("_", " ")})
    y = place("client", names)
    look = {"y": y, "x": amount("start", _title(run, rounds)), "x2": {"field": "end"}}
    phases = colour("phase", list(PHASES), list(PHASES.values()))
    ends = [{"end": start + length} for start, length in starts.values()]
    fates = sorted({row["status"] for row in faults})
    fate = {"y": y, "x": amount("at", _title(run, rounds)), "shape": shape("status", fates)}
    layers = [
        layer(bars, "bar", {**look, "color": phases}, height={"band": 0.72}),
        layer(ends, "rule", {"x": amount("end", _title(run, rounds))}, color=INK, strokeWidth=1),
    ]
    if deadline_s is not None:
        late = {row["round"] for row in run.reports if row.get("time_s", 0.0) > deadline_s}
        at = [
            {"end": start_s + deadline_s}
            for round, (start_s, length_s) in starts.items()
            if round in late or length_s >= deadline_s  # of others it would stand in the next round
        ]
        layers.append(
            layer(at, "rule", {"x": amount("end", _title(run, rounds))}, color=HARM, strokeDash=[4, 3])
        )
    if faults:
        layers.append(layer(faults, "point", fate, color=HARM, filled=True, size=80, opacity=1))
    return chart(*layers, height=max(80, 17 * len(names)))


def spans(row: Row, start_s: float, length_s: float) -> list[dict[str, Any]]:
    """What a device did in one round, from `start_s` of the run's virtual time, one after the other."""
    down_s, up_s, time_s = row["down_s"], row["up_s"], row["time_s"]
    ends = [0.0, down_s, time_s - up_s, time_s, max(time_s, length_s)]
    return [
        {"phase": phase, "start": start_s + a, "end": start_s + b}
        for phase, a, b in zip(PHASES, ends, ends[1:], strict=False)
        if b > a
    ]


def _starts(run: RunContent, rounds: Sequence[Row]) -> dict[int, tuple[float, float]]:
    """Round -> when it began and how long it was, rounds laid end to end, with a gap for the eye."""
    gap_s = 0.04 * sum(figures["time_s"] for figures in rounds) / len(rounds)
    longest = {
        figures["round"]: max(
            [
                figures["time_s"],
                *(row.get("time_s", 0.0) for row in run.reports if row["round"] == figures["round"]),
            ]
        )
        for figures in rounds
    }
    starts, now_s = {}, 0.0
    for figures in rounds:
        starts[figures["round"]] = (now_s, figures["time_s"])
        now_s += longest[figures["round"]] + gap_s
    return starts


def _title(run: RunContent, rounds: Sequence[Row]) -> str:
    some = f" (rounds 1 to {len(rounds)} of {len(run.rounds)})" if len(rounds) < len(run.rounds) else ""
    return f"virtual seconds, rounds end to end{some}"


def shown_clients(run: RunContent) -> list[tuple[int, str]]:
    """All clients of a small fleet; of a large one each class's fastest, median and slowest. Number and name."""
    devices = {row["client"]: row["device"] for row in run.reports}
    if len(devices) <= MOST_NAMED:
        return [(client, f"client {client}") for client in sorted(devices)]
    found = []
    for device in run.classes:
        mean_s = _mean_s([row for row in run.reports if row["device"] == device and "time_s" in row])
        order = sorted(mean_s, key=lambda client: (mean_s[client], client))
        if order:
            picks = {"fastest": order[0], "median": order[len(order) // 2], "slowest": order[-1]}
            found += [(client, f"{device}, {word} ({client})") for word, client in picks.items()]
    return list(dict(found).items())


def _mean_s(rows: Sequence[Row]) -> dict[int, float]:
    times: dict[int, list[float]] = {}
    for row in rows:
        times.setdefault(row["client"], []).append(row["time_s"])
    return {client: sum(values) / len(values) for client, values in times.items()}
