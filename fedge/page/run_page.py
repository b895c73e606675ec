"""The page of one run."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fedge.console.phases import percent
from fedge.console.table import points
from fedge.page import clients, costs, exits, html, stream, sums
from fedge.page.content import RunContent
from fedge.page.egress import left
from fedge.page.gantt import MOST_ROUNDS, gantt
from fedge.page.html import at, figure, interval, tile

Row = Mapping[str, Any]

MOST_ROWS = clients.MOST_LINES


def run_page(folder: Path, *audited: str) -> str:
    """The HTML of the finished run in `folder`. UserError where there is none. audited: of an audit, as HTML."""
    run = RunContent.read(folder)
    summary = run.summary
    title = f"{summary['scenario']}: {summary['clients']} clients, {summary['rounds']} rounds"
    return html.document(
        title,
        f"<h1>{escape(str(summary['scenario']))}</h1>",
        f'<p class="under">{_under(run)}</p>',
        f'<p class="answer">{answer(run)}</p>',
        f'<div class="tiles">{"".join(tiles(summary))}</div>',
        *sums.knowledge(run),
        *audited,
        *_clients(run),
        *_unseen(run),
        *_rounds(run),
        *stream.section(run),
        *exits.left_early(run),
        *_time(run),
        *(sums.left(run) if sums.is_by_sums(run) else left(run)),
        *record(run),
    )


def _under(run: RunContent) -> str:
    summary, data, model = run.summary, run.scenario.get("data", {}), run.scenario.get("model", {})
    name = model.get("name") or model.get("program", "")
    return (
        f"{figure(summary, 'clients', html.count)} clients, {figure(summary, 'rounds', html.count)} rounds; "
        f"data {escape(str(data.get('dataset', '')))}, network {escape(str(name))}, seed {figure(summary, 'seed', str)}"
    )


def answer(run: RunContent) -> str:
    """What the run shows, in one paragraph: the gain, against what, how sure, who is hurt, and the price."""
    summary = run.summary
    if at(summary, "accuracy.mean") is None:
        if sums.is_by_sums(run):
            return "<b>No round has said anything:</b> rounds.jsonl tells why (<code>silent</code>)."
        return "<b>No client with test rows ever reported in time:</b> there is nothing to compare."
    said = []
    if at(summary, "gain.error.mean") is not None:
        said.append(_error(summary))
    right = "within the tolerance" if said else "right"
    said.append(
        f"The clients' own networks are {right} on <b>{figure(summary, 'accuracy.mean', percent)}</b> of their "
        f"test rows, the factory model on {figure(summary, 'accuracy.factory', percent)}: "
    )
    if at(summary, "gain.mean") is not None:
        said.append(_gain(summary))
        said.append(_told(summary))
    said.append(_hurt(run))
    saved = figure(summary, "macs.saved", percent)
    said.append(
        f"Training took {saved} fewer multiply-accumulates than dense training of the whole network."
        if (at(summary, "macs.saved") or 0) >= 0
        else f"Training took more multiply-accumulates than dense training (saved: {saved})."
    )
    return " ".join(said)


def _gain(summary: Row) -> str:
    """The mean gain with its interval, and what that says."""
    mean = figure(summary, "gain.mean", points)
    ends = at(summary, "gain.interval")
    if ends is None:
        noise = sums.noise_of_gain(summary)
        return f"<b>{mean}</b>, of one client." if noise is None else f"<b>{mean}</b>, {noise}"
    verdict = (
        "a gain"
        if ends[0] > 0
        else "a loss"
        if ends[1] < 0
        else "no difference is shown, for the interval holds 0"
    )
    return f"<b>{mean}</b>, 95 % {interval(summary, 'gain.interval')} over clients: {verdict}."


def _told(summary: Row) -> str:
    over = at(summary, "gain.over_told")
    if over is None:
        return ""
    share = figure(summary, "accuracy.told", percent)
    told = f"told (the factory model that answers with a client's own classes only, for nothing: {share})"
    by = figure(summary, "gain.over_told", points)
    return (
        f"That is {by} against {told}."
        if over > 0
        else f"<b class='harm'>It does not reach</b> {told}: {by}."
    )


def _error(summary: Row) -> str:
    """Of numbers: how far the mean absolute error has fallen, in the data's unit."""
    low, high = (figure(summary, f"gain.error.interval.{end}", html.short) for end in (0, 1))
    return (
        f"The mean absolute error of the clients' own networks is <b>{figure(summary, 'error.mean', html.short)}</b>, "
        f"the factory model's {figure(summary, 'error.factory', html.short)}, in the data's unit: it has fallen by "
        f"{figure(summary, 'gain.error.mean', html.short)}, 95 % [{low}, {high}]."
    )


def _hurt(run: RunContent) -> str:
    share = at(run.summary, "hurt.any")
    than = "of a larger error than" if clients.tells_errors(run.tested) else "below"
    if share is None:
        return ""
    if not share:
        return f"No client is hurt: none is {than} the factory model on its own test rows."
    beyond = figure(run.summary, "hurt.beyond_chance", percent)
    if beyond == "-":  # of sums with noise
        return f"{figure(run.summary, 'hurt.any', percent)} of the clients are hurt, as far as noise lets it be told."
    return (
        f"<b class='harm'>{figure(run.summary, 'hurt.any', percent)} of the clients are hurt</b> ({than} the factory "
        f"model on their own test rows; {beyond} beyond chance)."
    )


def tiles(summary: Row) -> list[str]:
    """The eight figures; of labels, which nobody can be told, seven."""
    hurt, gain = at(summary, "hurt.any"), at(summary, "gain.mean")
    bits = figure(summary, "egress.bits_at_most", html.count)
    what = "accuracy" if at(summary, "error") is None else "within tolerance"
    at_most = "" if bits == "-" else f", a program's choice of each: {bits} bits"
    return [
        tile(f"{what}, mean of clients", figure(summary, "accuracy.mean", percent),
             f"factory {figure(summary, 'accuracy.factory', percent)}{_std(summary)}"),
        tile("gain over the factory model", figure(summary, "gain.mean", points),
             f"95 % {interval(summary, 'gain.interval')}", harm=gain is not None and gain < 0),
        *_told_or_error(summary),
        tile("worst decile of gains", figure(summary, "gain.worst_decile", points),
             f"accuracy of the worst {figure(summary, 'accuracy.worst_decile', percent)}",
             harm=(at(summary, "gain.worst_decile") or 0) < 0),
        tile("clients hurt", figure(summary, "hurt.any", percent),
             f"beyond chance {figure(summary, 'hurt.beyond_chance', percent)}", harm=bool(hurt)),
        tile("computation saved", figure(summary, "macs.saved", percent),
             "" if at(summary, "macs.done") is None else
             f"{figure(summary, 'macs.done', html.short)} of {figure(summary, 'macs.dense', html.short)} "
             "multiply-accumulates"),
        *_virtual(summary),
        tile("left the devices", figure(summary, "egress.bytes", html.size),
             f"{figure(summary, 'egress.messages', html.count)} messages{at_most}"),
    ]  # fmt: skip


def _std(summary: Row) -> str:
    return "" if at(summary, "accuracy.std") is None else f", ± {figure(summary, 'accuracy.std', percent)}"


def _virtual(summary: Row) -> list[str]:
    """Virtual time and energy; of the server that sees sums, all devices' time; of noised sums, none."""
    energy = f"and {figure(summary, 'energy_j', html.short)} J of all devices"
    if at(summary, "time_s") is not None:
        return [tile("virtual time", f"{figure(summary, 'time_s', html.short)} s", energy)]
    if at(summary, "device_time_s") is None:
        return []
    return [tile("virtual time of all devices", f"{figure(summary, 'device_time_s', html.short)} s", energy)]


def _told_or_error(summary: Row) -> list[str]:
    """What accuracy alone does not say: of classes the gain over told, of numbers their error."""
    error, before = at(summary, "error.mean"), at(summary, "error.factory")
    if error is not None:
        against = f"factory {figure(summary, 'error.factory', html.short)}, in the data's unit"
        harm = before is not None and error > before
        return [tile("mean absolute error", figure(summary, "error.mean", html.short), against, harm=harm)]
    over = at(summary, "gain.over_told")
    if over is None:
        return []
    told = f"told {figure(summary, 'accuracy.told', percent)}, free of cost"
    return [tile("gain over told", figure(summary, "gain.over_told", points), told, harm=over < 0)]


def _clients(run: RunContent) -> list[str]:
    if not run.tested:
        return []
    pairs = [clients.factory_and_served(row) for row in run.tested]
    shown = {"served": [now for _, now in pairs], "factory model": [before for before, _ in pairs]}
    told = [row["told_correct"] / row["test_count"] for row in run.tested if "told_correct" in row]
    of_errors, many = clients.tells_errors(run.tested), len(run.tested) > MOST_ROWS
    served = clients.dumbbell(run.tested, run.classes)
    spread = clients.spread(shown | ({"told": told} if told else {}), of_errors=of_errors)
    what = "error" if of_errors else "accuracy"
    return [
        "<h2>For whom it pays</h2>",
        html.chart("dumbbell", served, "From the factory model to the served network", _whose(run, many)),
        html.chart("spread", spread, f"How {what} is spread over the clients", clients.BETTER[of_errors]),
        html.details("All clients as a table" if not many else "Device classes as a table", _table(run)),
    ]


def _unseen(run: RunContent) -> list[str]:
    """The clients that nobody has learnt from, after their one round."""
    if "unseen" not in run.summary:
        return []
    tested = [row for row in run.unseen if row.get("test_count")]
    said = [
        f"{figure(run.summary, 'unseen.clients', html.count)} clients took part in one round alone, after all others, "
        f"and nobody has learnt from them: {figure(run.summary, 'unseen.accuracy.mean', percent)} of their test rows "
        f"are right, the factory model's {figure(run.summary, 'unseen.accuracy.factory', percent)}; "
        f"{figure(run.summary, 'unseen.gain.mean', points)}, 95 % {interval(run.summary, 'unseen.gain.interval')}; "
        f"{figure(run.summary, 'unseen.hurt.any', percent)} are hurt. All other figures are without them."
    ]
    shown = clients.dumbbell(tested, run.classes) if tested else None
    title = "From the factory model to the served network, after one round"
    return ["<h2>Clients nobody learns from</h2>", f"<p>{said[0]}</p>", html.chart("unseen", shown, title)]


def _whose(run: RunContent, many: bool) -> str:
    """How to read the first chart."""
    beside = clients.BESIDE[clients.tells_errors(run.tested)]
    note = (
        f"Hollow: the factory model; filled: the client's own network; {beside} beside it. Hurt clients stand on top, "
        "in vermilion."
    )
    if "served" in run.summary:
        by_factory = figure(run.summary, "served.factory", html.count)
        note += f" Clients that the factory model still serves ({by_factory}) are marked so."
    if not many:
        return note
    return f"{len(run.tested)} clients in {clients.BUNDLES} lines: each is the mean of neighbours in gain. {note}"


def _rounds(run: RunContent) -> list[str]:
    what = "Error" if clients.tells_errors(run.good) else "Accuracy"
    charts = [
        html.chart("rounds", costs.accuracy_over_rounds(run), f"{what} over rounds"),
        html.chart("kept", costs.kept_over_rounds(run), "Samples kept by the filter"),
        html.chart("parameters", costs.parameters_left(run), "Parameters left"),
        html.chart("memory", costs.memory(run), "Memory: needed, asked, there"),
    ]
    return (
        ["<h2>What the rounds did</h2>", f'<div class="pair">{"".join(charts)}</div>'] if any(charts) else []
    )


def _time(run: RunContent) -> list[str]:
    note = "Black line: the round's end. Dashed: the deadline. Marks: rounds that did not count, and why."
    if len(run.rounds) > MOST_ROUNDS:
        note = f"The first {MOST_ROUNDS} of {len(run.rounds)} rounds. {note}"
    drawn = html.chart("time", gantt(run), "Who did what when, in virtual time", note)
    failures: dict[str, int] = {}
    for figures in run.rounds:
        for status, number in figures["failures"].items():
            failures[status] = failures.get(status, 0) + number
    told = html.table(
        ["client rounds that did not count", "times"],
        [(escape(s.replace("_", " ")), f"{n:,}") for s, n in sorted(failures.items())],
    )
    return [
        "<h2>Time and faults</h2>",
        drawn,
        told if failures else "<p>Every client round that was asked counted.</p>",
    ]


def _table(run: RunContent) -> str:
    """A row per client; per device class where there are too many."""
    if len(run.tested) > MOST_ROWS:
        groups = [(name, [row for row in run.tested if row["device"] == name]) for name in run.classes]
        rows = [_line(f"{escape(name)}: {len(group)} clients", group) for name, group in groups if group]
    else:
        rows = [_line(f"{row['client']}, {escape(row['device'])}", [row]) for row in run.tested]
    columns = [name for name in rows[0] if any(row[name] != "-" for row in rows)]
    return html.table(columns, [[row[name] for name in columns] for row in rows])


def _line(name: str, rows: Sequence[Row]) -> dict[str, str]:
    """Means of accuracies, and of errors where numbers are asked for, and sums of counts, of one client or of a class;
    "-" for what there is none of."""

    def mean(values: Sequence[float]) -> float | None:
        return math.fsum(values) / len(values) if values else None

    def right(field: str) -> float | None:
        return mean(
            [row[field] / (row["test_count"] * row.get("decisions", 1)) for row in rows if field in row]
        )

    def error(field: str) -> str:
        found = mean([row[field] / row["test_count"] for row in rows if row.get(field) is not None])
        return "-" if found is None else html.short(found)

    def total(field: str) -> int:
        return sum(row.get(field, 0) for row in rows)

    served, factory = right("test_correct"), right("factory_correct")
    gain = None if served is None or factory is None else served - factory
    said = points(gain)
    return {
        "client": name,
        "test rows": f"{total('test_count'):,}",
        "error of the factory model": error("factory_error_sum"),
        "error": error("test_error_sum"),
        "factory": percent(factory),
        "told": percent(right("told_correct")),
        "served": percent(served),
        "gain": f'<b class="harm">{said}</b>' if gain is not None and gain < 0 else said,
        "rows gained": f"{total('test_gained'):,}",
        "lost": f"{total('test_lost'):,}",
        "parameters left": percent(
            total("parameters") / total("parameters_dense") if total("parameters_dense") else None
        ),
        "kept": percent(total("samples_kept") / total("samples_seen") if total("samples_seen") else None),
    }


def record(run: RunContent) -> list[str]:
    """What was run, on what, and how to run it again."""
    facts = [
        (escape(name), escape(str(value)))
        for name, value in run.environment.items()
        if isinstance(value, str | int | float)
    ]
    programs = [
        (escape(name), escape(str(digest)))
        for name, digest in (at(run.environment, "programs") or {}).items()
    ]
    return [
        "<h2>On record</h2>",
        "<p>The same numbers again:</p>",
        f"<pre>fedge run {escape(str(run.folder / 'scenario.toml'))} --out again</pre>",
        html.details("The resolved scenario", f"<pre>{escape(run.scenario_text)}</pre>"),
        html.details("Versions and processor", html.table(["what", "which"], facts, left=2) if facts else ""),
        html.details(
            "Programs, by digest", html.table(["file", "digest"], programs, left=2) if programs else ""
        ),
    ]
