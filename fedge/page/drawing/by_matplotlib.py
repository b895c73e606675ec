"""Draws the part of Vega-Lite that `marks` makes with matplotlib, where vl-convert-python is not installed."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedge.page.drawing.marks import FAINT, INK

Spec = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]

_PIXEL = 72 / 96  # in points
_MARKERS = {
    "circle": "o", "square": "s", "triangle-up": "^", "diamond": "D", "cross": "P", "triangle-down": "v",
    "triangle-right": ">", "triangle-left": "<",
}  # fmt: skip
_LOOK: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "fedge", "font.size": 8.5, "font.family": "sans-serif",
    "axes.edgecolor": FAINT, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.grid": True,
    "grid.color": "#E6E6E6", "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"], "legend.frameon": False,
}  # fmt: skip


def picture(spec: Spec) -> str:
    """The chart as SVG."""
    import logging

    import matplotlib

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would tell of fonts that this host lacks
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    width, height = ((spec[side] + margin) / 96 for side, margin in (("width", 140), ("height", 80)))
    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        canvas = _Canvas(axes, _places(spec))
        for layer in spec["layer"]:
            canvas.add(layer)
        canvas.finish(spec)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return file.getvalue()


def _places(spec: Spec) -> dict[str, int]:
    """Name -> its row, from the top, where the chart's y is of names."""
    for layer in spec["layer"]:
        y = layer["encoding"].get("y", {})
        if y.get("type") == "nominal":
            return {name: index for index, name in enumerate(y["sort"])}
    return {}


class _Canvas:
    """One pair of axes and what is drawn on it."""

    def __init__(self, axes: Any, places: Mapping[str, int]) -> None:
        self._axes, self._places = axes, places
        self._legend: dict[str, Any] = {}

    def add(self, layer: Spec) -> None:
        """Draw a layer: its rows, in groups of one look."""
        mark, encoding, rows = layer["mark"], layer["encoding"], layer["data"]["values"]
        for look, group in _groups(rows, encoding, mark):
            if group:
                getattr(self, f"_{mark['type']}")(group, encoding, look)
        self._note_legend(mark, encoding)

    def finish(self, spec: Spec) -> None:
        """Axes and legend."""
        for side in ("x", "y"):
            channels = [layer["encoding"][side] for layer in spec["layer"] if side in layer["encoding"]]
            for channel in (found for found in channels if "field" in found):
                self._axis(side, channel)
        if self._places:
            self._name_places(spec)
        if self._legend:
            columns = max(1, min(len(self._legend), spec["width"] // 140))
            self._axes.legend(
                self._legend.values(),
                self._legend.keys(),
                ncols=columns,
                loc="lower left",
                bbox_to_anchor=(0, 1),
            )

    def _axis(self, side: str, channel: Spec) -> None:
        axes, scale = self._axes, channel.get("scale") or {}
        if channel.get("title"):
            getattr(axes, f"set_{side}label")(channel["title"])
        if channel["type"] == "nominal":
            return
        if scale.get("type") == "log":
            getattr(axes, f"set_{side}scale")("log")
        if "domain" in scale:
            getattr(axes, f"set_{side}lim")(*scale["domain"])
        elif scale.get("zero"):
            getattr(axes, f"set_{side}lim")(**{"left" if side == "x" else "bottom": 0})
        axis, form = getattr(axes, f"{side}axis"), (channel.get("axis") or {}).get("format")
        if "labelExpr" in (channel.get("axis") or {}):
            form = "B"
        if form:
            axis.set_major_formatter(lambda value, _: _formatted(value, form))
        if form == "d":
            from matplotlib.ticker import MaxNLocator

            axis.set_major_locator(MaxNLocator(integer=True))

    def _name_places(self, spec: Spec) -> None:
        y = next(
            layer["encoding"]["y"] for layer in spec["layer"] if "sort" in layer["encoding"].get("y", {})
        )
        axes, labels = self._axes, y["axis"]["labels"]
        axes.set_ylim(len(self._places) - 0.5, -0.5)
        axes.set_yticks(range(len(self._places)) if labels else [], list(self._places) if labels else [])
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)

    def _at(self, rows: Rows, channel: Spec | None) -> list[Any]:
        if channel is None:
            return []
        values = [row[channel["field"]] for row in rows]
        return [self._places[value] for value in values] if channel.get("type") == "nominal" else values

    def _rule(self, rows: Rows, encoding: Spec, look: Spec) -> None:
        style = {
            "colors": look["colour"],
            "linewidths": look.get("strokeWidth", 1) * _PIXEL,
            "linestyles": _dashes(look),
        }
        x, y = encoding.get("x"), encoding.get("y")
        if x is None:
            for value in self._at(rows, y):
                self._axes.axhline(value, color=look["colour"], lw=style["linewidths"], ls=_dashes(look))
        elif y is None:
            for value in self._at(rows, x):
                self._axes.axvline(value, color=look["colour"], lw=style["linewidths"], ls=_dashes(look))
        elif "x2" in encoding:
            self._axes.hlines(self._at(rows, y), self._at(rows, x), self._at(rows, encoding["x2"]), **style)
        else:
            self._axes.vlines(self._at(rows, x), self._at(rows, y), self._at(rows, encoding["y2"]), **style)

    def _point(self, rows: Rows, encoding: Spec, look: Spec) -> None:
        filled, colour = look.get("filled", False), look["colour"]
        self._axes.scatter(
            self._at(rows, encoding["x"]),
            self._at(rows, encoding["y"]),
            s=look.get("size", 40) * _PIXEL**2 * 0.9,
            marker=_MARKERS[look["shape"]],
            facecolors=colour if filled else "none",
            edgecolors=colour,
            linewidths=0 if filled else look.get("strokeWidth", 1.5) * _PIXEL,
            alpha=look.get("opacity"),
            zorder=3,
        )

    def _tick(self, rows: Rows, encoding: Spec, look: Spec) -> None:
        self._axes.scatter(
            self._at(rows, encoding["x"]),
            self._at(rows, encoding["y"]),
            s=(look.get("size", 12) * _PIXEL) ** 2,
            marker="|",
            c=look["colour"],
            linewidths=look.get("thickness", 1) * _PIXEL,
            alpha=look.get("opacity"),
        )

    def _bar(self, rows: Rows, encoding: Spec, look: Spec) -> None:
        left = self._at(rows, encoding["x"])
        right = self._at(rows, encoding.get("x2"))
        lengths, start = ([b - a for a, b in zip(left, right, strict=True)], left) if right else (left, 0)
        self._axes.barh(self._at(rows, encoding["y"]), lengths, left=start, height=0.7, color=look["colour"])

    def _line(self, rows: Rows, encoding: Spec, look: Spec) -> None:
        self._axes.plot(
            self._at(rows, encoding["x"]),
            self._at(rows, encoding["y"]),
            color=look["colour"],
            lw=look.get("strokeWidth", 2) * _PIXEL,
            ls=_dashes(look),
            drawstyle="steps-post" if look.get("interpolate") == "step-after" else "default",
            marker="o" if look.get("point") else None,
            ms=4,
        )

    def _text(self, rows: Rows, encoding: Spec, look: Spec) -> None:
        frame = self._axes.get_xaxis_transform(), self._axes.get_yaxis_transform()
        for row in rows:
            fixed_x, fixed_y = ("field" not in encoding[side] for side in ("x", "y"))
            x = 0.01 if fixed_x else self._at([row], encoding["x"])[0]
            y = 0.97 if fixed_y else self._at([row], encoding["y"])[0]
            self._axes.annotate(
                str(row[encoding["text"]["field"]]),
                (x, y),
                xycoords=frame[0] if fixed_y else frame[1] if fixed_x else "data",
                xytext=(look.get("dx", 0) * _PIXEL, -look.get("dy", 0) * _PIXEL),
                textcoords="offset points",
                ha=look.get("align", "center"),
                va="center",
                color=look["colour"],
                fontsize=look.get("fontSize", 11) * _PIXEL,
            )

    def _note_legend(self, mark: Spec, encoding: Spec) -> None:
        from matplotlib.lines import Line2D

        by = encoding.get("color") or encoding.get("shape")
        if by is None or not by.get("legend"):
            return
        for name, look in _looks(encoding, mark):
            marker = (
                _MARKERS[look["shape"]] if mark["type"] == "point" else {"bar": "s"}.get(mark["type"], "")
            )
            self._legend[name] = Line2D(
                [], [], color=look["colour"], marker=marker, lw=0 if marker else 2, ls=_dashes(look)
            )


def _groups(rows: Rows, encoding: Spec, mark: Spec) -> Iterator[tuple[dict[str, Any], Rows]]:
    """Rows of one colour and shape, with all that their look is."""
    by = encoding.get("color") or encoding.get("shape")
    for name, look in _looks(encoding, mark):
        yield look, rows if by is None else [row for row in rows if row[by["field"]] == name]


def _looks(encoding: Spec, mark: Spec) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name -> the look of what is called so; one without a name where all rows look alike."""
    base = {"colour": mark.get("color", INK), "shape": mark.get("shape", "circle"), **mark}
    by = encoding.get("color") or encoding.get("shape")
    if by is None:
        yield "", base
        return
    ranges = {
        key: encoding[channel]["scale"]["range"]
        for key, channel in (("colour", "color"), ("shape", "shape"), ("strokeDash", "strokeDash"))
        if channel in encoding
    }
    for index, name in enumerate(by["scale"]["domain"]):
        yield name, base | {key: values[index] for key, values in ranges.items()}


def _dashes(look: Spec) -> Any:
    """Vega's lengths are pixels; matplotlib's, widths of the line."""
    dashes = look.get("strokeDash")
    if not dashes or dashes[1] == 0:
        return "solid"
    return (0, tuple(length / look.get("strokeWidth", 1) for length in dashes))


def _formatted(value: float, form: str) -> str:
    """The few of d3's formats that the charts use."""
    if form.endswith("%"):
        return f"{round(100 * value, 1):g}%"
    if form == "B":
        return f"{_formatted(value, '~s')}B"
    if form == "~s":
        for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:g}{unit}"
        return f"{value:g}"
    return f"{value:+g}" if form.startswith("+") else f"{value:g}"
