"""Of a run whose coordinator saw no report: what left, and what the server knows beside what the observer does.

The observer is whoever runs the simulation. It reads what each device has kept on its own side, which no server does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from fedge.console.phases import percent
from fedge.console.table import points
from fedge.page import html
from fedge.page.clients import factory_and_served, worse
from fedge.page.content import RunContent
from fedge.page.html import at, figure

Row = Mapping[str, Any]


def is_by_sums(run: RunContent) -> bool:
    """Whether the run's coordinator saw no report."""
    privacy = run.scenario.get("privacy", {})
    return privacy.get("view") == "sums" or privacy.get("epsilon") is not None


def knowledge(run: RunContent) -> list[str]:
    """Two columns: figures as the server has them, and as they are."""
    if not is_by_sums(run):
        return []
    last = [rows[-1] for rows in run.kept]
    tested = [row for row in last if row.get("test_count") and "factory_error_sum" not in row]
    truth = _truth(tested)
    rows = [
        [escape(name), figure(run.summary, path, form), "-" if truth.get(path) is None else form(truth[path])]
        for name, path, form in _FIGURES
    ]
    told = (
        f"The server's are of round {_last_spoken(run.summary)}, the last that spoke. The observer runs the "
        f"simulation: its column is made of what {len(last)} devices have kept on their own side, which no "
        "server reads."
    )
    return [
        "<h2>What the server knows, and what the observer knows</h2>",
        f"<p>{told} {_noise(run.summary)}</p>",
        html.table(["figure", "the server knows", "the observer knows"], [*rows, _singles(run)]),
    ]


_FIGURES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("accuracy, mean of clients", "accuracy.mean", percent),
    ("factory model's accuracy", "accuracy.factory", percent),
    ("worst decile of accuracy", "accuracy.worst_decile", percent),
    ("gain over the factory model", "gain.mean", points),
    ("worst decile of gains", "gain.worst_decile", points),
    ("clients hurt", "hurt.any", percent),
)


def _truth(tested: Sequence[Row]) -> dict[str, float]:
    """The figures of the devices' own last reports."""
    if not tested:
        return {}
    pairs = [factory_and_served(row) for row in tested]
    accuracy, gains = [served for _, served in pairs], [served - factory for factory, served in pairs]
    return {
        "accuracy.mean": _mean(accuracy),
        "accuracy.factory": _mean([factory for factory, _ in pairs]),
        "accuracy.worst_decile": _worst(accuracy),
        "gain.mean": _mean(gains),
        "gain.worst_decile": _worst(gains),
        "hurt.any": _mean([float(worse(row)) for row in tested]),
    }


def _singles(run: RunContent) -> list[str]:
    of_server = "no; who answered in which round, and with which word"
    return ["a single client's figures", of_server, f"of {len(run.kept)} clients"]


def _noise(summary: Row) -> str:
    if at(summary, "privacy.noise") is None:
        return "No noise is on them: two sums over clients that differ by one tell of that one."
    tests = at(summary, "privacy.noise.for_tests")
    warning = (
        "<b class='harm'>The noise comes from a seed, for tests, and hides nothing.</b> " if tests else ""
    )
    return (
        f"{warning}A mean is off by noise of ±{figure(summary, 'privacy.noise.sd', _points)} pp (one standard "
        f"deviation): epsilon {figure(summary, 'privacy.noise.epsilon', html.short)} at delta "
        f"{figure(summary, 'privacy.noise.delta', html.short)} is spent on each client."
    )


def noise_of_gain(summary: Row) -> str | None:
    """What noise does to a gain, which is a difference of two noised means; None without noise."""
    sd = at(summary, "privacy.noise.sd")
    return (
        None
        if sd is None
        else f"with noise of ±{100 * math.sqrt(2) * sd:.2g} pp on it (one standard deviation)."
    )


def _last_spoken(summary: Row) -> str:
    spoke = at(summary, "privacy.spoke") or []
    return str(spoke[-1]) if spoke else "none"


def left(run: RunContent) -> list[str]:
    """What left the devices: shares, or figures under noise."""
    rows = [
        [f"<code>{escape(field)}</code>", escape(_SAYS.get(field, "not a field of this version"))]
        for field in at(run.summary, "egress.fields") or []
    ]
    return [
        "<h2>What left the devices</h2>",
        f"<p>{figure(run.summary, 'egress.messages', html.count)} messages, "
        f"{figure(run.summary, 'egress.bytes', html.count)} bytes. No data, no weights, no gradients, and no report: "
        "the fields below, of the same size for every client.</p>",
        html.table(["field", "what it tells the coordinator"], rows, left=2),
    ]


_SAYS = {
    "error": "a word of a closed list in place of a report",
    "shares.round": "of which round it is",
    "shares.client": "which client speaks: answers are not anonymous",
    "shares.own": "the coordinator's share: nothing by itself",
    "shares.sealed": "the helper's share, which the helper alone can open: nothing by itself",
    "noised.round": "of which round it is",
    "noised.client": "which client speaks: answers are not anonymous",
    "noised.entries": "figures of the client's report under its own device's noise",
}


def _points(share: float) -> str:
    return f"{100 * share:.2g}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _worst(values: Sequence[float]) -> float:
    return _mean(sorted(values)[: math.ceil(len(values) / 10)])
