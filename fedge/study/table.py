"""table.md: the arms of a study, a line each, for a person."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from fedge.console.phases import percent
from fedge.console.table import points
from fedge.results.reading import arms_by_factory, of_another_factory

HEADINGS = (
    "arm", "accuracy", "worst decile", "gain", "95 % of it", "median", "improved", "hurt", "beyond chance",
    "GMAC", "J", "virtual s", "bytes left",
)  # fmt: skip
UNSEEN_HEADINGS = (
    "arm",
    "accuracy",
    "worst decile",
    "gain",
    "95 % of it",
    "hurt",
    "beyond chance",
    "GMAC",
    "J",
)
STREAM_HEADINGS = ("arm", "near future", "gain", "95 % of it", "test-then-train", "blind", "trained", "J")


def arm_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Per arm, what the headings say; starred gains are over another factory model than the other arms'."""
    odd = of_another_factory(summary)
    return [_row(arm, figures, "*" if arm in odd else "") for arm, figures in summary["arms"].items()]


def _row(arm: str, figures: Mapping[str, Any], star: str) -> tuple[str, ...]:
    accuracy, gain, cost = figures["accuracy"], figures["gain"], figures["cost"]
    return (
        arm,
        f"{percent(accuracy['mean'])} ± {percent(accuracy['std'])}",
        percent(accuracy["worst_decile"]),
        f"{points(gain['mean'])}{star}",
        _interval(gain["interval"]),
        points(gain["median"]),
        percent(gain["improved"]),
        percent(gain["hurt"]["any"]),
        percent(gain["hurt"]["beyond_chance"]),
        f"{cost['macs'] / 1e9:,.3g}",
        f"{cost['energy_j']:,.3g}",
        f"{cost['time_s']:,.3g}",
        f"{cost['bytes']:,.0f}",
    )


def _interval(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"


def verdicts(summary: Mapping[str, Any]) -> list[str]:
    """What the table says, in sentences: what costs nothing, who gains for sure, who does not, and which arms another
    one beats."""
    lines = _untrained(summary)
    odd = of_another_factory(summary)
    for arm, figures in summary["arms"].items():
        baseline = figures.get("baseline", summary["baseline"])
        baseline = f"its own {baseline}" if arm in odd else baseline
        interval = figures["gain"]["interval"]
        if arm == baseline or interval is None:
            continue
        if interval[0] > 0:
            lines.append(f"{arm} is above {baseline} by {_interval(interval)} points.")
        elif interval[1] < 0:
            lines.append(f"{arm} is below {baseline}: {_interval(interval)} points.")
        else:
            lines.append(f"{arm}: no difference from {baseline} is shown ({_interval(interval)} points).")
    for arm, figures in summary["arms"].items():
        told = figures["accuracy"]["told"]
        if told is not None and figures["accuracy"]["mean"] <= told:
            lines.append(f"{arm} does not reach told, which costs nothing ({percent(told)}).")
    for arm, figures in summary["arms"].items():
        if "served" in figures:
            kept = percent(figures["served"]["factory"])
            lines.append(f"{arm} leaves {kept} of the clients with the factory model.")
    return [*lines, *_beaten(summary["fronts"]["accuracy"]), *_other_factories(summary), *_left_out(summary)]


def _other_factories(summary: Mapping[str, Any]) -> list[str]:
    """Gains over factory models that differ are no measure of arms against each other."""
    arms, odd = summary["arms"], of_another_factory(summary)
    usual, *others = arms_by_factory(summary)
    against = "gain, told and hurt" if odd else "told and hurt"
    return [
        f"{'* ' if odd else ''}{' and '.join(group)} start{'s' if len(group) == 1 else ''} from another factory model "
        f"({percent(arms[group[0]]['accuracy']['factory'])} right) than {usual[0]} "
        f"({percent(arms[usual[0]]['accuracy']['factory'])}): {against} are against its own. Compare accuracies"
        + (", or take an arm as baseline." if odd else ".")
        for group in others
    ]


def _left_out(summary: Mapping[str, Any]) -> list[str]:
    """What the scenario asks for and a yardstick does not do."""
    parts: dict[tuple[str, ...], list[str]] = {}
    for arm, figures in summary["arms"].items():
        if figures.get("no_part"):
            parts.setdefault(tuple(figures["no_part"]), []).append(arm)
    return [
        f"{', '.join(arms)}: of the scenario, {', '.join(keys)} play no part (yardsticks train the whole network, or "
        "training.what of it, on every sample of every client)."
        for keys, arms in parts.items()
    ]


def _untrained(summary: Mapping[str, Any]) -> list[str]:
    """What a factory model answers as it was shipped, and told the classes: a sentence for each of them."""
    groups = arms_by_factory(summary)
    found = []
    for group in groups:
        accuracy = summary["arms"][group[0]]["accuracy"]
        if accuracy["factory"] is None:
            continue
        whose = f" of {', '.join(group)}" if len(groups) > 1 else ""
        told = (
            ""
            if accuracy["told"] is None
            else f", and {percent(accuracy['told'])} told each client's classes"
        )
        found.append(
            f"Untrained, the factory model{whose} answers {percent(accuracy['factory'])} of the test samples{told}."
        )
    return found


def _beaten(fronts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which arm is beaten by which other, and in which costs."""
    costs: dict[tuple[str, str], list[str]] = {}
    for cost, found in fronts.items():
        for arm, other in found["dominated"].items():
            costs.setdefault((arm, other), []).append(_WORDS[cost])
    return [
        f"{other} is as accurate as {arm} or more, and takes no more {', '.join(words)}."
        for (arm, other), words in costs.items()
    ]


_WORDS = {"macs": "multiply-accumulates", "energy_j": "energy", "time_s": "virtual time", "bytes": "bytes"}


def terminal_table(summary: Mapping[str, Any]) -> Table:
    """What fits a terminal: accuracy, gain and its interval, who is hurt, and two of the costs."""
    table = Table(title=summary["study"])
    shown = [HEADINGS.index(name) for name in ("gain", "95 % of it", "hurt", "GMAC", "J")]
    table.add_column("arm", overflow="fold")
    for name in ("accuracy", *(HEADINGS[index] for index in shown)):
        table.add_column(name, justify="right", no_wrap=True)
    for row, figures in zip(arm_rows(summary), summary["arms"].values(), strict=True):
        table.add_row(row[0], percent(figures["accuracy"]["mean"]), *(row[index] for index in shown))
    return table


def table_md(summary: Mapping[str, Any]) -> str:
    """The whole page."""
    runs = len(summary["worlds"]) * len(summary["seeds"])
    counts = "of the last round" if summary["select"] == "last" else "chosen by validation accuracy"
    by_point = any("baseline" in figures for figures in summary["arms"].values())
    point = " at the same point of the grid" if by_point else ""
    head = [
        f"# {summary['study']}",
        *([summary["question"]] if summary["question"] else []),
        f"Scenario {summary['scenario']}; {len(summary['worlds'])} worlds x {len(summary['seeds'])} seeds, {runs} runs "
        f"an arm; gains in percentage points over {summary['baseline']}{point}, client by client; the network that "
        f"counts is {counts}; costs are means of a run.",
    ]
    rows = [HEADINGS, tuple("---" for _ in HEADINGS), *arm_rows(summary)]
    table = _lines(rows)
    said = "\n".join(f"- {line}" for line in verdicts(summary))
    return (
        "\n\n".join([*head, table, *_streamed(summary), *([said] if said else []), *_unseen(summary)]) + "\n"
    )


def _streamed(summary: Mapping[str, Any]) -> list[str]:
    """What the arms made of a stream, an arm a line; nothing without one."""
    arms = {arm: figures for arm, figures in summary["arms"].items() if "stream" in figures}
    if not arms:
        return []
    head = (
        "Of the stream: near future is the accuracy on held-out frames of the time after each round, over all rounds; "
        "blind repeats the last label; trained is the share of the frames that were trained on."
    )
    rows = [
        (
            arm,
            percent(stream["future"]),
            points(stream["gain"]),
            _interval(stream["interval"]),
            percent(stream["ttt"]),
            percent(stream["blind"]),
            percent(stream["trained_share"]),
            f"{figures['cost']['energy_j']:,.3g}",
        )
        for arm, figures in arms.items()
        for stream in [figures["stream"]]
    ]
    return [head, _lines([STREAM_HEADINGS, tuple("---" for _ in STREAM_HEADINGS), *rows])]


def _unseen(summary: Mapping[str, Any]) -> list[str]:
    """The clients that nobody learns from, an arm a line; nothing where there are none."""
    arms = {arm: figures["unseen"] for arm, figures in summary["arms"].items() if "unseen" in figures}
    if not arms:
        return []
    head = "Clients nobody learns from, after one round of their own; all figures above are without them:"
    shown = [HEADINGS.index(name) for name in UNSEEN_HEADINGS]
    odd = of_another_factory(summary)
    all_rows = [_row(arm, figures, "*" if arm in odd else "") for arm, figures in arms.items()]
    rows = [tuple(row[index] for index in shown) for row in all_rows]
    return [head, _lines([UNSEEN_HEADINGS, tuple("---" for _ in UNSEEN_HEADINGS), *rows])]


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
