"""Charts of clients: factory model against served network, and how accuracy is spread."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from fedge.page.drawing.marks import (
    FAINT,
    HARM,
    INK,
    Rows,
    Spec,
    amount,
    chart,
    colour,
    dash,
    layer,
    place,
    shape,
)

MOST_LINES = 500  # clients that are drawn one by one
MOST_NAMED = 40  # of them with their name and gain beside them
BUNDLES = 100  # lines that stand for a larger fleet

BETTER = {  # by whether the task is numbers
    False: "A line further right is better; the dotted line marks the worst decile.",
    True: "A line further left is better; the dotted line marks the worst decile. In the data's unit.",
}
BESIDE = {False: "percentage points", True: "the change of its error, in the data's unit,"}

Row = Mapping[str, Any]


def paired(row: Row) -> dict[str, Any]:
    """One client's report as its line of the chart: accuracies, or mean absolute errors where numbers are asked for.

    gain: how far it is better off, in accuracy or in error.
    """
    factory, served = factory_and_served(row)
    return {
        "client": f"client {row['client']}{', factory' if row.get('served') == 0 else ''}",
        "device": row["device"],
        "factory": factory,
        "served": served,
        "gain": factory - served if tells_errors([row]) else served - factory,
        "hurt": worse(row),
    }


def factory_and_served(row: Row) -> tuple[float, float]:
    """What the factory model and the client's own network come to on its test rows."""
    if tells_errors([row]):
        return row["factory_error_sum"] / row["test_count"], row["test_error_sum"] / row["test_count"]
    count = row["test_count"] * row.get("decisions", 1)
    return row["factory_correct"] / count, row["test_correct"] / count


def tells_errors(rows: Sequence[Row]) -> bool:
    """Whether the task is numbers: then an error says more than how many answers are near enough."""
    return any(
        row.get("test_error_sum") is not None and row.get("factory_error_sum") is not None for row in rows
    )


def worse(row: Row) -> bool:
    """Than the factory model: by a right answer, or, where numbers are asked for, by a larger error."""
    if tells_errors([row]):
        return bool(row["test_error_sum"] > row["factory_error_sum"])
    return bool(row["test_correct"] < row["factory_correct"])


def lines_of(clients: Sequence[Row]) -> list[dict[str, Any]]:
    """Sorted by gain, worst first; of more than MOST_LINES clients each line is the mean of neighbours in gain."""
    found = sorted(
        (paired(row) for row in clients), key=lambda line: (not line["hurt"], line["gain"], line["served"])
    )
    if len(found) <= MOST_LINES:
        return found
    edges = [index * len(found) // BUNDLES for index in range(BUNDLES + 1)]
    bundles = [found[start:end] for start, end in itertools.pairwise(edges)]
    return [_bundle(index, bundle) for index, bundle in enumerate(bundles)]


def _bundle(index: int, lines: Sequence[Row]) -> dict[str, Any]:
    means = {key: sum(line[key] for line in lines) / len(lines) for key in ("factory", "served", "gain")}
    return {
        "client": f"{index + 1}",
        "device": f"mean of some {len(lines)} clients",
        **means,
        "hurt": means["gain"] < 0,
    }


def dumbbell(clients: Sequence[Row], classes: Sequence[str]) -> Spec:
    """From the factory model's accuracy, or error, to the served network's: a line per client, the hurt ones on top and
    marked."""
    rows, of_errors = lines_of(clients), tells_errors(clients)
    order = [row["client"] for row in rows]
    named = len(rows) <= MOST_NAMED
    kinds = list(dict.fromkeys(row["device"] for row in rows)) if len(clients) > MOST_LINES else list(classes)
    y = place("client", order, "" if named else "clients, by gain", labels=named)
    x = {name: measure(name, of_errors) for name in ("factory", "served", "end")}
    hurt = [row for row in rows if row["hurt"]]
    others = [row for row in rows if not row["hurt"]]
    size = 70 if named else 22
    both = {"y": y, "x": x["factory"], "x2": {"field": "served"}}
    end = {"color": colour("device", kinds), "shape": shape("device", kinds)}
    layers = [
        layer(others, "rule", both, color=FAINT, strokeWidth=2 if named else 1),
        layer(hurt, "rule", both, color=HARM, strokeWidth=4 if named else 1.5),
        layer(
            rows,
            "point",
            {"y": y, "x": x["factory"]},
            color=INK,
            size=size * 0.6,
            filled=False,
            strokeWidth=1.2,
        ),
        layer(rows, "point", {"y": y, "x": x["served"], **end}, size=size, filled=True, opacity=1),
    ]
    if named:
        said = [
            row | {"said": _said(row["gain"], of_errors), "end": max(row["factory"], row["served"])}
            for row in rows
        ]
        text = {"y": y, "x": x["end"], "text": {"field": "said", "type": "nominal"}}
        lost = [row for row in said if row["hurt"]]
        layers += [
            layer(
                [row for row in said if not row["hurt"]],
                "text",
                text,
                align="left",
                dx=8,
                fontSize=11,
                color=INK,
            ),
            layer(lost, "text", text, align="left", dx=8, fontSize=11, color=HARM),
        ]
    step = 18 if named else max(2.0, min(8.0, 700 / len(rows)))
    return chart(*layers, height=max(60, round(step * len(rows))))


def measure(field: str, of_errors: bool) -> Spec:
    """The channel of accuracies on clients' test rows, or of errors."""
    if of_errors:
        return amount(field, "mean absolute error on the client's own test rows", format="~g", zero=True)
    return amount(field, "accuracy on the client's own test rows", format=".1~%")


def _said(gain: float, of_errors: bool) -> str:
    """Beside a line: percentage points of accuracy, or by how much the error has changed."""
    return f"{-gain:+.2g}" if of_errors else f"{100 * gain:+.1f}"


def spread(named: Mapping[str, Sequence[float]], *, of_errors: bool = False) -> Spec:
    """The share of clients at or below each accuracy, or error, a step line per name."""
    rows = [point for name, values in named.items() for point in _steps(name, values)]
    x = measure("accuracy", of_errors)
    y = amount("share", "share of clients at or below", format=".1~%", domain=(0, 1))
    look = {"x": x, "y": y, "color": colour("name", list(named)), "strokeDash": dash("name", list(named))}
    lines = layer(rows, "line", look, interpolate="step-after", strokeWidth=2)
    decile = layer([{"share": 0.9 if of_errors else 0.1}], "rule", {"y": y}, color=FAINT, strokeDash=[2, 3])
    return chart(decile, lines, height=260)


def _steps(name: str, values: Sequence[float], most: int = 400) -> Rows:
    """Points of the step line; of more than `most` values, as many quantiles."""
    there = sorted(values)
    if len(there) > most:
        there = [
            there[min(len(there) - 1, round(index * (len(there) - 1) / (most - 1)))] for index in range(most)
        ]
    start = [{"name": name, "accuracy": there[0], "share": 0.0}] if there else []
    ends: dict[float, int] = {
        value: index for index, value in enumerate(there, start=1)
    }  # the last of equals
    return [
        *start,
        *({"name": name, "accuracy": value, "share": rank / len(there)} for value, rank in ends.items()),
    ]
