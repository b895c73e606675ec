"""What left the devices, field by field: its range, its bits, and what it may tell of the client's data."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pydantic import ValidationError

from fedge.page import html
from fedge.page.content import RunContent
from fedge.page.html import at, figure
from fedge.protocol.budget import Kind, facts_or_any, free_bits, kind_of
from fedge.protocol.report import MOST_EPOCHS, REPORT, WORDS, RoundReport
from fedge.scenario.methods.exits import OWN_PLACES
from fedge.scenario.schema import Scenario
from fedge.scenario.stream.section import MOST_FRAMES

Row = Mapping[str, Any]

SIZE = "how many rows the client has (times epochs, or a constant of the network)"
HARDNESS = "how hard the client's rows are for the network; over rounds, how far it has learnt them"
DEVICE = "the device's hardware and what the plan asked; its rows only by their number"
WORK = (
    "how much was computed: rows that the filter found worth training on, and the size of the pruned network"
)
LEVEL = (
    "where the level is found on the device: how much of the network its rows let go, and how hard they are"
)
DISTANCE = "how far the client's rows are from the factory's"
VIRTUAL = "virtual time and energy: of the work, and of the device's speed, power and link"
RAN = "what really ran: what the plan named, or the program's own"
PLAN = "nothing that the coordinator did not ask for"

REVEALS: dict[str, str] = {
    "round": PLAN,
    "client": "which client speaks: reports are not anonymous",
    "samples_seen": SIZE,
    "samples_kept": WORK,
    "macs_done": WORK,
    "macs_dense": SIZE,
    "macs_filter": SIZE,
    "bit_operations": WORK,
    "train_loss": HARDNESS,
    "epoch_loss": HARDNESS,
    "validation_correct": HARDNESS,
    "validation_count": SIZE,
    "test_correct": HARDNESS,
    "test_count": SIZE,
    "factory_correct": DISTANCE,
    "told_correct": "how much the client's classes alone explain: hints at which classes it holds",
    "test_gained": HARDNESS,
    "test_lost": HARDNESS,
    "parameters": LEVEL,
    "parameters_dense": PLAN,
    "level_tries": LEVEL,
    "batch_size": DEVICE,
    "memory_bytes": DEVICE,
    "memory_asked_bytes": DEVICE,
    "memory_limit_bytes": DEVICE,
    "criterion": RAN,
    "instance_filter": RAN,
    "error_maps": RAN,
    "optimizer": RAN,
    "what": RAN,
    "loss": RAN,
    "decisions": "how many labels a row has, the same for all clients",
    "validation_error_sum": HARDNESS,
    "test_error_sum": HARDNESS,
    "factory_error_sum": DISTANCE,
    "test_better": HARDNESS,
    "test_worse": HARDNESS,
    "served": "in which round the client's network was at its best; 0: whether training has helped it at all",
    "arrived": "how busy the client's surroundings were",
    "labelled": "how often somebody labelled what came",
    "stored": "how many frames the device holds",
    "trained": "how much of what came was new to the device, and how fast it is",
    "ttt_correct": HARDNESS,
    "ttt_count": "how many frames came that the device had not stored before",
    "blind_correct": "how long the client's surroundings stay as they are",
    "future_correct": HARDNESS,
    "future_count": "how many held-out frames come next",
    "past_correct": HARDNESS,
    "past_count": "how many held-out frames came first",
    "alarms": "how often its own errors told it that what comes has changed",
    "exit_left": "how sure each exit is of the client's rows",
    "exit_right": HARDNESS,
    "exit_alone": HARDNESS,
    "exit_macs": WORK,
    "trunk_macs": WORK,
    "answer_s": VIRTUAL,
    "answer_worst_s": VIRTUAL,
    "time_s": VIRTUAL,
    "down_s": VIRTUAL,
    "up_s": VIRTUAL,
    "energy_j": VIRTUAL,
    "wall_s": "how long the simulation took; a real device's clock",
}
LITTLE = (VIRTUAL, DEVICE, RAN, PLAN)  # the last groups of the table
WRITTEN_BY: dict[Kind, str] = {
    "known": "the device; known beforehand",
    "counted": "the device, which counts it",
    "free": "the program chooses",
}
OWN = "declared by the scenario; what it tells is its author's to say"


def left(run: RunContent) -> list[str]:
    """Every field that left, with its range and what it held in this run, by what it may reveal."""
    groups: dict[str, list[Row]] = {}
    for row in egress_rows(at(run.summary, "egress.fields") or [], run.scenario):
        groups.setdefault(row["reveals"], []).append(row)
    order = sorted(groups, key=lambda reveals: LITTLE.index(reveals) if reveals in LITTLE else -1)
    said = [
        (escape(reveals), [_cells(row, [*run.reports, *run.unseen]) for row in groups[reveals]])
        for reveals in order
    ]
    return [
        "<h2>What left the devices</h2>",
        f"<p>{figure(run.summary, 'egress.messages', html.count)} messages, "
        f"{figure(run.summary, 'egress.bytes', html.count)} bytes. No data, no weights, no gradients: the numbers "
        f"below, and nothing else, passed the egress gate. {_choice(run.summary)} Nothing is noised. Under each "
        "heading, what the fields may reveal of the client.</p>",
        html.grouped(["field", "range", "written by", "bits of choice", "in this run"], said),
    ]


def _choice(summary: Row) -> str:
    """What the client program could choose of a report, and how few samples a figure may be of."""
    bits, least = figure(summary, "egress.bits_at_most", html.count), at(summary, "privacy.least_count") or 1
    chosen = "" if bits == "-" else f"A client program chooses {bits} bits of a report at most. "
    of = f"No figure is of fewer than {least} samples." if least > 1 else "A figure may be of one sample."
    return f"{chosen}{of}"


def _cells(row: Row, reports: Sequence[Row]) -> list[str]:
    ends = [_power(row[end]) for end in ("least", "most")]
    words = row["field"] in WORDS
    return [
        f"<code>{escape(row['field'])}</code>",
        escape(ends[1] if words else " to ".join(end for end in ends if end)),
        escape(row["by"]),
        escape(row["bits"]),
        escape(held(reports, row["field"])),
    ]


def _power(number: str) -> str:
    """A thousand million, written 1e+09, as 10\u2079."""
    digits = str.maketrans("0123456789", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")

    def written(found: re.Match[str]) -> str:
        times = "" if found[1] == "1" else f"{found[1]}\u00b7"
        return f"{times}10{found[2].translate(digits)}"

    return re.sub(r"\b(\d+)e\+0*(\d+)\b", written, number)


def held(reports: Sequence[Row], field: str) -> str:
    """The values of a field in the reports: from least to most, or the words."""
    values = [row[field] for row in reports if field in row]
    numbers = [n for value in values for n in (value if isinstance(value, list) else [value])]
    if not numbers:
        return ""
    if isinstance(numbers[0], str):
        return ", ".join(sorted(set(numbers)))
    least, most = html.short(min(numbers)), html.short(max(numbers))
    return least if least == most else f"{least} to {most}"


def egress_rows(fields: list[str], scenario: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row per field of `summary.egress.fields`: name, least, most, who writes it, the bits that a client program
    chooses of it, and what it may reveal."""
    known = RoundReport.model_json_schema()["properties"]
    facts = facts_or_any(str(scenario.get("data", {}).get("dataset", "")))
    served = int(scenario.get("rounds", 1)) if f"{REPORT}.served" in fields else 0
    free = free_bits(
        scenario.get("training", {}).get("epochs", MOST_EPOCHS),
        facts,
        served,
        frames=_stream_frames(scenario),
        detecting=f"{REPORT}.alarms" in fields,
        exits=_exits(scenario),
    )
    own = scenario.get("report", {}).get("figures", {})
    rows = []
    for field in sorted(fields, key=lambda field: (field == "error", field)):
        name = field.removeprefix(f"{REPORT}.")
        if name.startswith("own.") and name.removeprefix("own.") in own:
            rows.append(_own_row(name, own[name.removeprefix("own.")]))
        elif name in known:
            said = {"by": WRITTEN_BY[kind_of(name)], "bits": str(free.get(name, 0)), "reveals": REVEALS[name]}
            rows.append({"field": name, **_range(name, known[name]), **said})
        else:
            empty = dict.fromkeys(("least", "most", "by", "bits"), "")
            rows.append({"field": name, **empty, "reveals": _unknown(name)})
    return rows


def _stream_frames(scenario: Mapping[str, Any]) -> int | None:
    """The most that a stream brought to a device; of a scenario that this version cannot read, what a report holds."""
    if "stream" not in scenario.get("data", {}):
        return None
    try:
        return Scenario.model_validate(scenario).stream_frames
    except ValidationError:
        return MOST_FRAMES


def _exits(scenario: Mapping[str, Any]) -> int:
    """How many a network had at most, the last among them; 0: none."""
    exits = scenario.get("training", {}).get("exits")
    return 0 if exits is None else (len(exits.get("where", ())) or OWN_PLACES) + 1


def _unknown(name: str) -> str:
    return (
        "a word of a closed list in place of a report" if name == "error" else "not a field of this version"
    )


def _own_row(name: str, figure: Mapping[str, Any]) -> dict[str, str]:
    least, most, steps = figure["least"], figure["most"], figure["steps"]
    said = {"by": WRITTEN_BY["free"], "bits": str((steps - 1).bit_length()), "reveals": OWN}
    return {"field": name, "least": f"{least:g}", "most": f"{most:g}", **said}


def _range(name: str, schema: Mapping[str, Any]) -> dict[str, str]:
    schema = next((kind for kind in schema.get("anyOf", ()) if kind["type"] != "null"), schema)
    if name in WORDS:
        words = WORDS[name]
        return {"least": words[0], "most": f"one of {len(words)} words"}
    if schema["type"] == "array":
        items = schema["items"]
        return {
            "least": f"{items['minimum']:g}",
            "most": f"{items['maximum']:g}, up to {MOST_EPOCHS} of them",
        }
    return {"least": f"{schema['minimum']:g}", "most": f"{schema['maximum']:g}"}
