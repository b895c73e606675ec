"""What left the devices, field by field: its range, its bits, and what it may tell of the client's data."""

from collections.abc import Mapping
from typing import Any

from fedge.protocol.report import MOST_EPOCHS, REPORT, WORDS, RoundReport

SIZE = "how many rows the client has"
HARDNESS = "how hard the client's rows are for the network; over rounds, how far it has learnt them"
DEVICE = "the device's hardware and what the plan asked; its rows only by their number"
PLAN = "nothing that the coordinator did not ask for"

REVEALS: dict[str, str] = {
    "round": PLAN,
    "client": "which client speaks: reports are not anonymous",
    "samples_seen": f"{SIZE}, times the epochs",
    "samples_kept": "how many rows the filter found worth training on",
    "macs_done": "how much was computed: rows kept, and the size of the pruned network",
    "macs_dense": f"{SIZE}, times a constant of the network",
    "macs_filter": SIZE,
    "bit_operations": "the same as the multiply-accumulates",
    "train_loss": HARDNESS,
    "epoch_loss": HARDNESS,
    "validation_correct": HARDNESS,
    "validation_count": SIZE,
    "test_correct": HARDNESS,
    "test_count": SIZE,
    "factory_correct": "how far the client's rows are from the factory's",
    "told_correct": "how much the client's classes alone explain: hints at which classes it holds",
    "test_gained": HARDNESS,
    "test_lost": HARDNESS,
    "parameters": "how many channels the client's own rows let go, where the level is found on the device",
    "parameters_dense": PLAN,
    "level_tries": "how soon a level was found; with an accuracy target, how hard the rows are",
    "batch_size": DEVICE,
    "memory_bytes": DEVICE,
    "memory_asked_bytes": DEVICE,
    "memory_limit_bytes": "the device's hardware",
    "criterion": "what really ran: what the plan named, or the program's own",
    "instance_filter": "what really ran: what the plan named, or the program's own",
    "error_maps": "what really ran: what the plan named, or the program's own",
    "optimizer": "what really ran: what the plan named, or the program's own",
    "what": "what really ran: what the plan named, or the program's own",
    "loss": "what really ran: what the plan named, or the program's own",
    "decisions": "how many labels a row has, the same for all clients",
    "validation_error_sum": HARDNESS,
    "test_error_sum": HARDNESS,
    "factory_error_sum": "how far the client's rows are from the factory's",
    "test_better": HARDNESS,
    "test_worse": HARDNESS,
    "served": "in which round the client's network was at its best; 0: whether training has helped it at all",
    "time_s": "virtual: a function of the work and of the device's speed",
    "down_s": "virtual: the device's link and the plan's size",
    "up_s": "virtual: the device's link and the report's size",
    "energy_j": "virtual: a function of the work and of the device's power",
    "wall_s": "how long the simulation took; a real device's clock",
}
OWN = "declared by the scenario; what it tells is its author's to say"


def egress_rows(fields: list[str], scenario: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row per field of `summary.egress.fields`: name, least, most, bits, and what it may reveal."""
    known = RoundReport.model_json_schema()["properties"]
    own = scenario.get("report", {}).get("figures", {})
    rows = []
    for field in sorted(fields, key=lambda field: (field == "error", field)):
        name = field.removeprefix(f"{REPORT}.")
        if name.startswith("own.") and name.removeprefix("own.") in own:
            rows.append(_own_row(name, own[name.removeprefix("own.")]))
        elif name in known:
            rows.append({"field": name, **_range(name, known[name]), "reveals": REVEALS[name]})
        else:
            rows.append({"field": name, "least": "", "most": "", "bits": "", "reveals": _unknown(name)})
    return rows


def _unknown(name: str) -> str:
    return (
        "a word of a closed list in place of a report" if name == "error" else "not a field of this version"
    )


def _own_row(name: str, figure: Mapping[str, Any]) -> dict[str, str]:
    least, most, steps = figure["least"], figure["most"], figure["steps"]
    bits = (steps - 1).bit_length()
    return {"field": name, "least": f"{least:g}", "most": f"{most:g}", "bits": str(bits), "reveals": OWN}


def _range(name: str, schema: Mapping[str, Any]) -> dict[str, str]:
    schema = next((kind for kind in schema.get("anyOf", ()) if kind["type"] != "null"), schema)
    if name in WORDS:
        words = WORDS[name]
        bits = (len(words) - 1).bit_length()
        return {"least": words[0], "most": f"one of {len(words)} words", "bits": str(bits)}
    if schema["type"] == "array":
        items = schema["items"]
        return {
            "least": f"{items['minimum']:g}",
            "most": f"{items['maximum']:g}, at most {MOST_EPOCHS}",
            "bits": "64 an epoch",
        }
    most = schema["maximum"]
    bits = int(most).bit_length() if schema["type"] == "integer" else 64
    return {"least": f"{schema['minimum']:g}", "most": f"{most:g}", "bits": str(bits)}
