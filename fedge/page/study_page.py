"""The page of a study, from study.json and its clients' rows, both as plain data."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fedge.console.phases import percent
from fedge.console.table import points
from fedge.page import clients, html
from fedge.page.html import at, figure, interval, tile
from fedge.page.study_charts import COSTS, accuracy_against, factory_models, gains
from fedge.results.reading import of_another_factory

Row = Mapping[str, Any]


def study_page(folder: Path, summary: Row, rows: Sequence[Row], verdicts: Sequence[str]) -> str:
    """`summary`: study.json. `rows`: one per arm, cell and client, as StudyResult.frame has them. `verdicts`: sentences
    on what the table says."""
    seen = [row for row in rows if not row.get("unseen")]
    return html.document(
        f"{summary['study']}: {len(summary['arms'])} arms",
        f"<h1>{escape(str(summary['study']))}</h1>",
        f'<p class="answer"><b>{escape(str(summary.get("question") or ""))}</b></p>'
        if summary.get("question")
        else "",
        f'<p class="under">{_under(summary)}</p>',
        f'<p class="answer">{answer(summary)}</p>',
        f'<div class="tiles">{"".join(_tiles(summary))}</div>',
        *_arms(summary, seen, verdicts),
        *_clients(summary, seen),
        *_unseen(summary),
        *_costs(summary),
        *_record(folder, summary),
    )


def _under(summary: Row) -> str:
    worlds, seeds = len(summary["worlds"]), len(summary["seeds"])
    which = "of the last round" if summary["select"] == "last" else "chosen by validation accuracy"
    runs = " \u00d7 ".join((_plural(worlds, "world"), _plural(seeds, "seed")))
    return (
        f"Scenario {escape(str(summary['scenario']))}; {runs}, {_plural(worlds * seeds, 'run')} of every arm. "
        f"Gains are over {escape(str(summary['baseline']))}, client by client on the same test rows; intervals (95 %) "
        f"are over clients and runs. The network that counts is {which}."
    )


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _best(summary: Row) -> str | None:
    """The arm of the highest mean gain, or accuracy where gains are over unlike factory models; None where no arm has
    one."""
    path = _best_by(summary)
    there = {arm: at(figures, path) for arm, figures in summary["arms"].items()}
    told = {arm: gain for arm, gain in there.items() if gain is not None}
    return max(told, key=lambda arm: told[arm], default=None)


def _best_by(summary: Row) -> str:
    return "accuracy.mean" if of_another_factory(summary) else "gain.mean"


def answer(summary: Row) -> str:
    """The best arm, how sure that is, whom it hurts, and the cheapest of those that no other beats."""
    best = _best(summary)
    if best is None:
        return "<b>No client with test rows ever reported in time:</b> there is nothing to compare."
    found = summary["arms"][best]
    gain, accuracy, hurt = (
        _fig(summary, best, "gain.mean", points),
        found["accuracy"],
        at(found, "gain.hurt.any"),
    )
    said = [
        f"The arm of the highest mean {_best_by(summary).partition('.')[0]} is <b>{escape(best)}</b>: <b>{gain}</b> "
        f"over {escape(found.get('baseline', summary['baseline']))} {interval_of(summary, best)}, "
        f"{_fig(summary, best, 'accuracy.mean', percent)} of test rows right.",
        _sure(at(found, "gain.interval")),
    ]
    if accuracy.get("told") is not None and accuracy["mean"] <= accuracy["told"]:
        told = _fig(summary, best, "accuracy.told", percent)
        said.append(f"<b class='harm'>It does not reach told</b>, which costs nothing ({told}).")
    if hurt:
        said.append(
            f"<b class='harm'>{_fig(summary, best, 'gain.hurt.any', percent)} of clients and runs are hurt.</b>"
        )
    said.append(_cheapest(summary, best))
    return " ".join(part for part in said if part)


def _cheapest(summary: Row, best: str) -> str:
    """Of the arms that no other beats in accuracy and multiply-accumulates; of several points of a grid, nothing."""
    if "baseline" in summary["arms"][best]:
        return ""
    arm = next(iter(at(summary, "front") or []), None)
    if arm is None or arm == best:
        return ""
    return (
        f"The cheapest arm that no other beats in accuracy and multiply-accumulates is {escape(arm)}: "
        f"{_fig(summary, arm, 'accuracy.mean', percent)} of test rows right for "
        f"{_fig(summary, arm, 'cost.macs', html.short)} of them against {_fig(summary, best, 'cost.macs', html.short)}."
    )


def _sure(ends: Sequence[float] | None) -> str:
    if ends is None:
        return ""
    if ends[0] > 0:
        return "The interval lies above 0: a gain."
    return (
        "The interval lies below 0: a loss."
        if ends[1] < 0
        else "The interval holds 0: no difference is shown."
    )


def _fig(summary: Row, arm: str, path: str, form: html.Form) -> str:
    """A figure of an arm; arms' names may hold dots."""
    return figure(summary["arms"][arm], path, form).replace(
        'data-from="', f'data-arm="{escape(arm, quote=True)}" data-from="'
    )


def interval_of(summary: Row, arm: str, path: str = "gain.interval") -> str:
    said = interval(summary["arms"][arm], path)
    return said.replace('data-from="', f'data-arm="{escape(arm, quote=True)}" data-from="')


def _tiles(summary: Row) -> list[str]:
    best = _best(summary)
    if best is None:
        return []
    found = summary["arms"][best]
    hurt = at(found, "gain.hurt.any")
    has_told = at(found, "accuracy.told") is not None
    told = f", told {_fig(summary, best, 'accuracy.told', percent)}" if has_told else ""
    return [
        tile(f"gain of {best}", _fig(summary, best, "gain.mean", points), f"95 % {interval_of(summary, best)}",
             harm=(at(found, "gain.mean") or 0) < 0),
        tile("accuracy", _fig(summary, best, "accuracy.mean", percent),
             f"factory {_fig(summary, best, 'accuracy.factory', percent)}{told}"),
        tile("worst decile of gains", _fig(summary, best, "gain.worst_decile", points),
             f"median {_fig(summary, best, 'gain.median', points)}", harm=(at(found, "gain.worst_decile") or 0) < 0),
        tile("clients and runs hurt", _fig(summary, best, "gain.hurt.any", percent),
             f"beyond chance {_fig(summary, best, 'gain.hurt.beyond_chance', percent)}", harm=bool(hurt)),
    ]  # fmt: skip


HEAD = ("arm", "accuracy", "worst decile", "gain", "95 %", "median", "improved", "hurt", "beyond chance")
COST_HEAD = ("arm", "multiply-accumulates", "energy, J", "virtual time, s", "left the devices")


def _arms(summary: Row, rows: Sequence[Row], verdicts: Sequence[str]) -> list[str]:
    by_arm = {arm: gains_of(summary, rows, arm) for arm in summary["arms"]}
    note = (
        "Dot and bar: the mean and its 95 % interval. Ticks: clients and runs; those that lose in vermilion."
    )
    if odd := of_another_factory(summary):
        note += f" {', '.join(sorted(odd))}: over a factory model of its own, not to be compared with the others'."
    said = "".join(f"<li>{escape(line)}</li>" for line in verdicts)
    return [
        "<h2>What each arm brings</h2>",
        html.chart("gains", gains(summary, by_arm), f"Gain over {summary['baseline']}", note),
        f"<ul>{said}</ul>" if said else "",
        html.table(HEAD, [_row(summary, arm) for arm in summary["arms"]]),
        *_errors(summary),
    ]


def _errors(summary: Row) -> list[str]:
    """Of numbers: mean absolute errors, in the data's unit."""
    arms = [arm for arm, figures in summary["arms"].items() if "error" in figures]
    rows = [
        [escape(arm), *(_fig(summary, arm, f"error.{key}", html.short) for key in ("factory", "mean"))]
        for arm in arms
    ]
    head = ("arm", "mean absolute error: factory model", "served network")
    return [html.table(head, rows)] if arms else []


def _row(summary: Row, arm: str) -> list[str]:
    found = summary["arms"][arm]
    hurt = _fig(summary, arm, "gain.hurt.any", percent)
    star = "*" if arm in of_another_factory(summary) else ""
    return [
        escape(arm),
        _fig(summary, arm, "accuracy.mean", percent),
        _fig(summary, arm, "accuracy.worst_decile", percent),
        _fig(summary, arm, "gain.mean", points) + star,
        interval_of(summary, arm) or "-",
        _fig(summary, arm, "gain.median", points),
        _fig(summary, arm, "gain.improved", percent),
        f'<b class="harm">{hurt}</b>' if at(found, "gain.hurt.any") else hurt,
        _fig(summary, arm, "gain.hurt.beyond_chance", percent),
    ]


UNSEEN_HEAD = ("arm", "factory", "accuracy", "gain", "95 %", "hurt", "gain of those that took part")


def _unseen(summary: Row) -> list[str]:
    """How each arm serves the clients that nobody has learnt from, beside those that took part."""
    arms = [arm for arm, figures in summary["arms"].items() if "unseen" in figures]
    if not arms:
        return []
    note = (
        "Clients that took part in one round alone, after all others; all other figures are without them. "
        "A yardstick serves them with what the others have learnt."
    )
    rows = [
        [
            escape(arm),
            _fig(summary, arm, "unseen.accuracy.factory", percent),
            _fig(summary, arm, "unseen.accuracy.mean", percent),
            _fig(summary, arm, "unseen.gain.mean", points),
            interval_of(summary, arm, "unseen.gain.interval") or "-",
            _fig(summary, arm, "unseen.gain.hurt.any", percent),
            _fig(summary, arm, "gain.mean", points),
        ]
        for arm in arms
    ]
    return [
        "<h2>Clients nobody learns from</h2>",
        f'<p class="note">{note}</p>',
        html.table(UNSEEN_HEAD, rows),
    ]


def gains_of(summary: Row, rows: Sequence[Row], arm: str) -> list[float]:
    """Client by client and run by run: accuracy above the baseline's."""
    own, baseline = [row for row in rows if row["arm"] == arm], summary["baseline"]
    if baseline in ("factory", "told"):
        return [row["accuracy"] - row[baseline] for row in own if row[baseline] is not None]
    there = {_whose(row): row["accuracy"] for row in rows if row["arm"] == baseline}
    return [row["accuracy"] - there[_whose(row)] for row in own if _whose(row) in there]


def _whose(row: Row) -> tuple[int, int, int]:
    return row["world"], row["seed"], row["client"]


def _clients(summary: Row, rows: Sequence[Row]) -> list[str]:
    reports = {arm: [_as_report(row) for row in rows if row["arm"] == arm] for arm in summary["arms"]}
    pairs = {arm: [clients.factory_and_served(row) for row in own] for arm, own in reports.items() if own}
    if not pairs:
        return []
    named = {arm: [served for _, served in own] for arm, own in pairs.items()}
    for name, arm in factory_models(summary).items():
        named[name] = [before for before, _ in pairs.get(arm, ())]
    best = _best(summary) or next(iter(pairs))
    own = reports[best]
    of_errors = clients.tells_errors(own)
    spread = clients.spread(named, of_errors=of_errors)
    served = clients.dumbbell(own, sorted({row["device"] for row in own}))
    beside = f"; {clients.BESIDE[of_errors]} beside it" if len(own) <= clients.MOST_NAMED else ""
    note = (
        f"{len(own)} clients and runs. Hollow: the factory model; filled: the client's own network{beside}. Hurt "
        "clients stand on top, in vermilion."
    )
    what = "error" if of_errors else "accuracy"
    return [
        "<h2>For whom it pays</h2>",
        html.chart(
            "spread", spread, f"How {what} is spread over clients and runs", clients.BETTER[of_errors]
        ),
        html.chart("dumbbell", served, f"From the factory model to the served network, {best}", note),
    ]


def _as_report(row: Row) -> dict[str, Any]:
    """A row as the dumbbell takes it; a client of several runs has a line in each."""
    return {
        "client": f"{row['client']}, world {row['world']}, seed {row['seed']}",
        "device": row["device"],
        "test_count": row["count"],
        "test_correct": row["correct"],
        "factory_correct": row["factory_correct"],
        "decisions": row["decisions"],
        "test_error_sum": row["error_sum"],
        "factory_error_sum": row["factory_error_sum"],
    }


def _costs(summary: Row) -> list[str]:
    charts = [
        html.chart(f"cost-{cost}", accuracy_against(summary, cost), f"Accuracy against {title}")
        for cost, title in COSTS.items()
    ]
    note = "Filled, on the line: arms that no other one beats in both. Hollow: arms that another one beats."
    rows = [
        [
            escape(arm),
            *(
                _fig(summary, arm, f"cost.{name}", html.size if name == "bytes" else html.short)
                for name in COSTS
            ),
        ]
        for arm in summary["arms"]
    ]
    return [
        "<h2>What it costs</h2>",
        f'<p class="note">{note}</p>',
        f'<div class="pair">{"".join(charts)}</div>',
        html.table(COST_HEAD, rows),
    ]


def _record(folder: Path, summary: Row) -> list[str]:
    cells = [
        (escape(arm), ", ".join(map(escape, figures["cells"]))) for arm, figures in summary["arms"].items()
    ]
    return [
        "<h2>On record</h2>",
        "<p>Each cell is the folder of a run below <code>cells/</code>, with its scenario, programs and versions; its "
        "own page:</p>",
        f"<pre>fedge report {escape(str(folder / 'cells' / 'CELL'))}</pre>",
        html.details("Cells of each arm", html.table(["arm", "cells"], cells, left=2)),
    ]
