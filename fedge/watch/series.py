"""What a tracker is told: names and values, the same for every tracker. The step is the round."""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

_OF_A_ROUND = {
    "fleet/accuracy_mean": "accuracy.mean",
    "fleet/accuracy_worst_decile": "accuracy.worst_decile",
    "fleet/accuracy_factory": "accuracy.factory",
    "fleet/hurt": "hurt.any",
    "fleet/clients_ok": "ok",
    "cost/macs_saved": "saved",
    "cost/macs": "macs_done",
    "cost/energy_j": "energy_j",
    "cost/parameters_left": "parameters_left",
    "cost/answer_macs": "exits.macs.mean",
    "stream/future": "stream.future",
    "stream/test_then_train": "stream.ttt",
    "stream/blind": "stream.blind",
    "stream/trained_share": "stream.trained_share",
    "time/virtual_s": "time_s",
    "time/wall_s": "wall_s",
}
_OF_A_RUN = {
    "run/gain_mean": "gain.mean",
    "run/gain_over_told": "gain.over_told",
    "run/hurt_beyond_chance": "hurt.beyond_chance",
    "run/unseen_gain_mean": "unseen.gain.mean",
    "run/macs_saved": "macs.saved",
    "run/virtual_s": "time_s",
    "run/energy_j": "energy_j",
    "egress/bytes": "egress.bytes",
    "egress/messages": "egress.messages",
}
_OF_AN_ARM = {
    "accuracy_mean": "accuracy.mean",
    "gain_mean": "gain.mean",
    "hurt": "gain.hurt.any",
    "cost_macs": "cost.macs",
    "cost_energy_j": "cost.energy_j",
    "cost_virtual_s": "cost.time_s",
    "cost_bytes": "cost.bytes",
}


def round_series(figures: Row) -> dict[str, float]:
    """Of a line of rounds.jsonl, without figures that nobody has. `faults/STATUS`: clients that failed so. The round of
    unseen clients has names of its own, below `unseen/`, for it is no step of the others'."""
    series = _found(figures, _OF_A_ROUND)
    series |= {f"faults/{status}": float(count) for status, count in figures.get("failures", {}).items()}
    series |= {f"own/{name}": own["mean"] for name, own in figures.get("own", {}).items()}
    return {f"unseen/{name}": value for name, value in series.items()} if "unseen" in figures else series


def run_series(summary: Row) -> dict[str, float]:
    """Of summary.json."""
    return _found(summary, _OF_A_RUN)


def study_series(summary: Row) -> dict[str, float]:
    """Of study.json, by arm. What no tracker has in a name (a grid's "=") is a colon."""
    return {
        f"{arm.replace('=', ':')}/{name}": value
        for arm, figures in summary["arms"].items()
        for name, value in _found(figures, _OF_AN_ARM).items()
    }


def settings(scenario: Row, prefix: str = "") -> dict[str, str]:
    """Dotted key -> value of every setting that is not empty, as text."""
    found: dict[str, str] = {}
    for key, value in scenario.items():
        if isinstance(value, Mapping):
            found |= settings(value, f"{prefix}{key}.")
        elif value not in (None, "", [], ()):
            found[f"{prefix}{key}"] = str(value)
    return found


def _found(row: Row, names: Mapping[str, str]) -> dict[str, float]:
    series = {}
    for name, path in names.items():
        value: Any = row
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            series[name] = float(value)
    return series
