"""The small part of Vega-Lite that the page's charts are made of: layers of marks over rows of plain data.

A chart is `{"width", "height", "layer": [...]}`; a layer has `data.values`, a `mark` and an `encoding`.
What stands here is all that `by_matplotlib` has to draw too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

# Okabe and Ito's palette, which the colour-blind tell apart; vermilion is kept for harm and faults.
HARM = "#D55E00"
COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D", "#7B5BA6", "#8C6D31")
SHAPES = (
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "cross",
    "triangle-down",
    "triangle-right",
    "triangle-left",
)
DASHES = ([1, 0], [7, 3], [2, 2], [10, 3, 2, 3], [12, 4], [5, 2, 1, 2, 1, 2], [4, 4], [1, 3])
INK, FAINT = "#333333", "#9A9A9A"
WIDE, HALF = 700, 300  # pixels


def chart(*layers: Spec, width: int = WIDE, height: int = 260) -> Spec:
    return {"width": width, "height": height, "layer": list(layers)}


def layer(rows: Rows, mark: str, encoding: Mapping[str, Any], **look: Any) -> Spec:
    """One mark per row. `look`: its constant properties, as Vega-Lite calls them."""
    return {
        "data": {"values": [dict(row) for row in rows]},
        "mark": {"type": mark, **look},
        "encoding": dict(encoding),
    }


def amount(
    field: str,
    title: str = "",
    *,
    format: str = "",
    domain: Sequence[float] | None = None,
    log: bool = False,
    zero: bool = False,
) -> Spec:
    """A quantitative channel."""
    scale: Spec = {"zero": zero, "nice": domain is None}
    if domain is not None:
        scale["domain"] = list(domain)
    if log:
        scale = {"type": "log"}
    return {
        "field": field,
        "type": "quantitative",
        "title": title or None,
        "scale": scale,
        "axis": _axis(format) | ({"tickCount": 5, "grid": False} if log else {}),
    }


def _axis(format: str) -> Spec:
    """Ticks written so. "B": bytes, by 1,000. "d": of whole numbers, none between them."""
    if format == "B":
        return {"format": "~s", "labelExpr": "datum.label ? datum.label + 'B' : ''"}
    return ({"format": format} if format else {}) | ({"tickMinStep": 1} if format == "d" else {})


def place(field: str, order: Sequence[str], title: str = "", *, labels: bool = True) -> Spec:
    """A row of the chart per name, from the top in `order`."""
    axis: Spec = {"labels": labels, "ticks": False, "domain": False, "grid": False, "labelLimit": 220}
    return {"field": field, "type": "nominal", "title": title or None, "sort": list(order), "axis": axis}


def colour(
    field: str, names: Sequence[str], colours: Sequence[str] = COLOURS, *, legend: bool = True
) -> Spec:
    """A colour per name."""
    return _by_name(field, names, colours, legend)


def shape(field: str, names: Sequence[str], *, legend: bool = True) -> Spec:
    """A shape per name, for those who see no colours."""
    return _by_name(field, names, SHAPES, legend)


def dash(field: str, names: Sequence[str]) -> Spec:
    """A dashing per name, for lines, which the legend then shows as such."""
    found = _by_name(field, names, DASHES, legend=True)
    return found | {"legend": found["legend"] | {"symbolType": "stroke", "symbolSize": 500}}


def _by_name(field: str, names: Sequence[str], values: Sequence[Any], legend: bool) -> Spec:
    scale = {"domain": list(names), "range": [values[index % len(values)] for index in range(len(names))]}
    box: Spec | None = {"title": None, "orient": "top", "labelLimit": 200} if legend else None
    return {"field": field, "type": "nominal", "scale": scale, "legend": box}


def line_at(value: float, text: str, *, axis: str, title: str = "", below: bool = False) -> list[Spec]:
    """A dashed line across the chart at a value, with its name above it, or below: layers."""
    along: dict[str, Any] = {axis: amount("value", title)}
    rows = [{"value": value, "name": text}]
    named = {**along, "text": {"field": "name", "type": "nominal"}}
    look: dict[str, Any] = {"align": "left", "fontSize": 11, "color": INK}
    if axis == "y":
        named["x"] = {"value": 4}
        look["dy"] = 8 if below else -7
    else:
        named["y"] = {"value": 8}
        look["dx"] = 4
    return [
        layer(rows, "rule", along, color=INK, strokeDash=[5, 4]),
        layer(rows, "text", named, **look),
    ]
