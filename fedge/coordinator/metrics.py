"""Fleet figures from the clients' reports: exact sums, and how accuracy is spread over the clients.

Sums run in client order, so a figure does not depend on which reply came first. Every figure is finite and says how
many of how many clients it speaks for.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedge.coordinator.exits import exits
from fedge.coordinator.paired import hurt, mean, worst_decile
from fedge.fleet.selection import Closing
from fedge.protocol.figures import PREFIX

Row = Mapping[str, Any]

SUMMED = ("samples_seen", "samples_kept", "macs_done", "macs_dense", "macs_filter", "bit_operations")


def summarise_round(round: int, rows: Sequence[Row], *, online: int, closing: Closing) -> dict[str, Any]:
    """One line of rounds.jsonl: the sums over the reports that count, and how their accuracy is spread.

    `online` of the fleet could have been asked, `clients` were, `ok` reported in time, `wanted` were hoped for.
    """
    ok = [row for row in rows if row["status"] == "ok"]
    sums = {name: sum(row[name] for row in ok) for name in SUMMED}
    return {
        "round": round,
        "online": online,
        "clients": len(rows),
        "wanted": closing.wanted,
        "quorum_met": closing.quorum_met,
        "ok": len(ok),
        "failures": dict(sorted(Counter(row["status"] for row in rows if row["status"] != "ok").items())),
        **sums,
        "saved": saved(sums["macs_done"], sums["macs_dense"]),
        "accuracy": accuracy(ok),
        **errors(ok),
        "hurt": hurt(ok),
        **served(ok),
        "validation": spread(accuracies(ok, "validation_correct", "validation_count")),
        **own_figures(ok),
        **exits(ok),
        "parameters_left": parameters_left(ok),
        "time_s": closing.time_s,
        "energy_j": math.fsum(row["energy_j"] for row in ok),
    }


def accuracy(rows: Sequence[Row]) -> dict[str, float | int | None]:
    """How the clients' test accuracy is spread, beside the means of the factory model's on the same rows.

    told: the factory model's too, told the classes of a client's training rows, which costs nothing.
    """
    return {
        "factory": spread(accuracies(rows, "factory_correct"))["mean"],
        "told": spread(accuracies(rows, "told_correct"))["mean"],
        **spread(accuracies(rows, "test_correct")),
    }


def accuracies(rows: Iterable[Row], correct: str, count: str = "test_count") -> list[float]:
    """Per client, in client order; a client without such data has none and is left out."""
    return [
        row[correct] / (row[count] * row.get("decisions", 1)) for row in rows if row[count] and correct in row
    ]


def errors(rows: Sequence[Row]) -> dict[str, dict[str, float | int | None]]:
    """`{"error": ...}`: how the clients' mean absolute test error is spread, beside the mean of the factory model's.

    worst_decile is the mean of the largest. Empty where the data's task is not numbers.
    """
    if not any("test_error_sum" in row for row in rows):
        return {}
    own, factory = (_errors(rows, field) for field in ("test_error_sum", "factory_error_sum"))
    worst = -worst_decile([-value for value in own]) if own else None
    return {"error": {"factory": spread(factory)["mean"], **spread(own), "worst_decile": worst}}


def _errors(rows: Sequence[Row], field: str) -> list[float]:
    return [row[field] / row["test_count"] for row in rows if row["test_count"] and field in row]


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean, standard deviation over the clients, mean of the worst ceil(n / 10), extremes; None where n is 0."""
    if not values:
        return {"clients": 0, "mean": None, "std": None, "worst_decile": None, "min": None, "max": None}
    middle = mean(values)
    return {
        "clients": len(values),
        "mean": middle,
        "std": math.sqrt(mean([(value - middle) ** 2 for value in values])),
        "worst_decile": worst_decile(values),
        "min": min(values),
        "max": max(values),
    }


def served(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """`{"served": ...}`: how many clients are served by the factory model, by a network of an earlier round than the
    report's, and by that of its round. Empty where no report says so, since all are served by the last."""
    said = [row for row in rows if "served" in row]
    if not said:
        return {}
    factory = sum(row["served"] == 0 for row in said)
    last = sum(row["served"] == row["round"] for row in said)
    return {"served": {"factory": factory, "earlier": len(said) - factory - last, "last": last}}


def own_figures(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float | int]]]:
    """`{"own": {NAME: ...}}`: mean and std over the clients, weighted by their test rows, and extremes.

    Where nobody has test rows every client weighs the same. Empty where no report holds figures of a program's own.
    """
    names = sorted({key for row in rows for key in row if key.startswith(PREFIX)})
    return {"own": {name.removeprefix(PREFIX): _weighted(rows, name) for name in names}} if names else {}


def _weighted(rows: Sequence[Row], name: str) -> dict[str, float | int]:
    held = [row for row in rows if name in row]
    weights = [row["test_count"] for row in held]
    if not any(weights):
        weights = [1] * len(held)
    values = [row[name] for row in held]
    middle = _weighted_mean(values, weights)
    return {
        "clients": len(held),
        "mean": middle,
        "std": math.sqrt(_weighted_mean([(value - middle) ** 2 for value in values], weights)),
        "min": min(values),
        "max": max(values),
    }


def _weighted_mean(values: Sequence[float], weights: Sequence[int]) -> float:
    pairs = zip(values, weights, strict=True)
    return math.fsum(value * weight for value, weight in pairs) / sum(weights)


def macs(parts: Iterable[Row]) -> dict[str, float | int]:
    """What reports, or rounds, took together, beside dense training of the whole network."""
    parts = list(parts)
    done, dense = (sum(part[name] for part in parts) for name in ("macs_done", "macs_dense"))
    return {"done": done, "dense": dense, "saved": saved(done, dense)}


def saved(done: int, dense: int) -> float:
    """1 - done / dense; 0 where nothing was to do."""
    return 1 - done / dense if dense else 0.0


def parameters_left(rows: Sequence[Row]) -> float | None:
    """Share of the fleet's parameters that pruning has left; None where nobody reported."""
    dense = sum(row["parameters_dense"] for row in rows)
    return sum(row["parameters"] for row in rows) / dense if dense else None
