"""Charts of a study: the gain of every arm with its interval, and what accuracy costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedge.page.drawing.marks import (
    COLOURS,
    FAINT,
    HALF,
    HARM,
    INK,
    Spec,
    amount,
    chart,
    colour,
    layer,
    line_at,
    place,
    shape,
)
from fedge.results.reading import arms_by_factory

TICK = "#6E6E6E"
MOST_TICKS = 200  # of an arm; of more clients and runs, as many quantiles

Row = Mapping[str, Any]

_FORMATS = {"energy_j": "~r", "time_s": "~r"}
COSTS = {
    "macs": "multiply-accumulates of a run",
    "energy_j": "virtual energy of a run, J",
    "time_s": "virtual time of a run, s",
    "bytes": "bytes that left the devices in a run",
}


def gains(summary: Row, by_arm: Mapping[str, Sequence[float]]) -> Spec | None:
    """Every arm's gains in percentage points: a tick per client and run, the mean and its 95 % interval."""
    arms = {
        arm: figures["gain"]
        for arm, figures in summary["arms"].items()
        if figures["gain"]["mean"] is not None
    }
    if not arms:
        return None
    y = place("arm", list(arms))
    title = f"gain over {summary['baseline']}, percentage points"
    x = {name: amount(name, title, format="+.3~r") for name in ("gain", "mean", "low")}
    along = {"x": x["gain"], "y": y}
    ticks = [{"arm": arm, "gain": 100 * gain} for arm in arms for gain in _few(by_arm.get(arm, ()))]
    means = [{"arm": arm, "mean": 100 * gain["mean"]} for arm, gain in arms.items()]
    ends = [
        {"arm": arm, "low": 100 * gain["interval"][0], "high": 100 * gain["interval"][1]}
        for arm, gain in arms.items()
        if gain["interval"]
    ]
    return chart(
        layer([{"gain": 0}], "rule", {"x": x["gain"]}, color=INK),
        layer(
            [tick for tick in ticks if tick["gain"] >= 0],
            "tick",
            along,
            color=TICK,
            size=22,
            opacity=0.7,
        ),
        layer(
            [tick for tick in ticks if tick["gain"] < 0],
            "tick",
            along,
            color=HARM,
            size=22,
            opacity=0.7,
        ),
        layer(
            ends, "rule", {"y": y, "x": x["low"], "x2": {"field": "high"}}, color=COLOURS[0], strokeWidth=4
        ),
        layer(means, "point", {"y": y, "x": x["mean"]}, color=COLOURS[0], filled=True, size=110, opacity=1),
        height=max(70, 36 * len(arms)),
        width=620,
    )


def factory_models(summary: Row) -> dict[str, str]:
    """Name -> an arm that starts from it: one, unless arms differ in the network that the factory ships."""
    arms = [group[0] for group in arms_by_factory(summary)]
    return {"factory": arms[0]} if len(arms) == 1 else {f"factory of {arm}": arm for arm in arms}


def _few(values: Sequence[float]) -> Sequence[float]:
    there = sorted(values)
    if len(there) <= MOST_TICKS:
        return there
    return [there[round(index * (len(there) - 1) / (MOST_TICKS - 1))] for index in range(MOST_TICKS)]


def accuracy_against(summary: Row, cost: str) -> Spec | None:
    """Mean accuracy of every arm against what it costs; filled and joined: the arms that no other one beats."""
    arms = {
        arm: figures for arm, figures in summary["arms"].items() if figures["accuracy"]["mean"] is not None
    }
    if not arms:
        return None
    best = summary["fronts"]["accuracy"][cost]["arms"]
    rows = [
        {"arm": arm, "accuracy": figures["accuracy"]["mean"], "cost": figures["cost"][cost]}
        for arm, figures in arms.items()
    ]
    x, y = (
        amount("cost", COSTS[cost], format=_FORMATS.get(cost, "~s")),
        amount("accuracy", "mean accuracy", format=".1~%"),
    )
    look = {"x": x, "y": y, "color": colour("arm", list(arms)), "shape": shape("arm", list(arms))}
    by_point = any(
        "baseline" in figures for figures in arms.values()
    )  # then fronts are of a point each: no one line
    order = sorted((row for row in rows if row["arm"] in best and not by_point), key=lambda row: row["cost"])
    marks = [
        mark
        for name, arm in factory_models(summary).items()
        if arm in arms and arms[arm]["accuracy"]["factory"] is not None
        for mark in line_at(
            arms[arm]["accuracy"]["factory"], f"{name}, no cost", axis="y", title="mean accuracy"
        )
    ]
    return chart(
        layer(order, "line", {"x": x, "y": y}, color=FAINT, interpolate="step-after", strokeWidth=1.5),
        layer(
            [row for row in rows if row["arm"] not in best],
            "point",
            look,
            filled=False,
            size=90,
            strokeWidth=2,
        ),
        layer(order, "point", look, filled=True, size=110, opacity=1),
        *marks,
        width=HALF,
        height=220,
    )
