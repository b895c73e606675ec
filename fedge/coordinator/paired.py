"""Client by client against the factory model, on the same test rows: what was gained, how surely, and who is hurt.

Rows are clients' reports. A client without test rows has no figure and is left out; where nobody has one, a figure
is None. Every client weighs the same, however many test rows it has.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from fedge.protocol.hurt import is_beyond_chance, is_worse

Row = Mapping[str, Any]

DRAWS = 2000  # of a bootstrap


def gain(rows: Sequence[Row], *, seed: int) -> dict[str, Any]:
    """How far accuracy has risen above the factory model's, over the clients: -1 (all lost) to 1.

    mean, median, worst_decile (mean of the worst ceil(n / 10)), interval ([low, high], 95 %, of the mean) and
    over_told: the mean above `told`, which a method must beat to be worth its cost; None where no class is asked for.
    error, of numbers: the same of how far the mean absolute error has fallen, in the data's unit.
    """
    over_told = paired_gains(rows, "told_correct")
    gained = _spread(paired_gains(rows, "factory_correct"), seed)
    gained["over_told"] = mean(over_told) if over_told else None
    if any("test_error_sum" in row for row in rows):
        gained["error"] = _spread(errors_saved(rows), seed)
    return gained


def _spread(gains: Sequence[float], seed: int) -> dict[str, Any]:
    if not gains:
        return dict.fromkeys(("mean", "median", "worst_decile", "interval"))
    return {
        "mean": mean(gains),
        "median": statistics.median(gains),
        "worst_decile": worst_decile(gains),
        "interval": bootstrap_interval(gains, seed),
    }


def hurt(rows: Sequence[Row]) -> dict[str, float | None]:
    """Shares of the clients, 0..1, whose network is worse than the factory model on their own test rows.

    any: by a row or more. beyond_chance: so much that chance alone does it in less than 5 % of cases, one-sided.
    Of clients that nothing has changed for, up to 5 % are expected there. Where the task is numbers, worse is a larger
    error. Labels of one sample stand together: chance is told from the samples answered better and worse.
    """
    tested = [row for row in rows if row["test_count"]]
    if not tested:
        return {"any": None, "beyond_chance": None}
    worse = [row for row in tested if is_worse(row)]
    beyond = [row for row in worse if is_beyond_chance(row)]
    return {"any": len(worse) / len(tested), "beyond_chance": len(beyond) / len(tested)}


def paired_gains(rows: Sequence[Row], against: str) -> list[float]:
    """Per client, in client order: accuracy less that of the right answers counted in field `against`; -1..1."""
    return [
        (row["test_correct"] - row[against]) / (row["test_count"] * row.get("decisions", 1))
        for row in rows
        if row["test_count"] and against in row
    ]


def errors_saved(rows: Sequence[Row]) -> list[float]:
    """Per client, in client order: the factory model's mean absolute error less the client's."""
    return [
        (row["factory_error_sum"] - row["test_error_sum"]) / row["test_count"]
        for row in rows
        if row["test_count"]
    ]


def bootstrap_interval(values: Sequence[float], seed: int, draws: int = DRAWS) -> list[float] | None:
    """The 95 % percentile bootstrap interval [low, high] of the mean of `values`, drawn with replacement.

    It speaks for clients like these, with the same seed and data: a repeated run varies more. None for fewer than
    two values, which say nothing of how others vary.
    """
    if len(values) < 2:
        return None
    generator = Random(seed)
    means = [mean(generator.choices(values, k=len(values))) for _ in range(draws)]
    fortieths = statistics.quantiles(means, n=40, method="inclusive")
    return [fortieths[0], fortieths[-1]]


def mean(values: Sequence[float]) -> float:
    """Of one value or more, without rounding on the way."""
    return math.fsum(values) / len(values)


def worst_decile(values: Sequence[float]) -> float:
    """Mean of the worst ceil(n / 10) of n values, n >= 1."""
    return mean(sorted(values)[: math.ceil(len(values) / 10)])
