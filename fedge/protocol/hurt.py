"""Whether one client is worse off than with the factory model, on its own test rows, and whether chance explains it."""

import math
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

CHANCE = 0.05  # a client whose losses chance explains less often than this is hurt beyond it


def is_worse(row: Row) -> bool:
    """Of a report with test rows: fewer right answers; where the task is numbers, a larger error."""
    if "test_error_sum" in row:
        return bool(row["test_error_sum"] > row["factory_error_sum"])
    return bool(row["test_correct"] < row["factory_correct"])


def is_beyond_chance(row: Row) -> bool:
    """Of a client that is worse off: chance alone does that in less than 5 % of cases, one-sided."""
    return chance_of_losing(*_tosses(row)) < CHANCE


def _tosses(row: Row) -> tuple[int, int]:
    """Test samples that the client's network and the factory model's answer unlike: for the better, and the worse."""
    if "test_better" in row:
        return row["test_better"], row["test_worse"]
    return row["test_gained"], row["test_lost"]


def chance_of_losing(gained: int, lost: int) -> float:
    """Exact one-sided McNemar test: the chance of `lost` or more losses in gained + lost even coin tosses, 0..1.

    Rows that both networks get right, or both wrong, say nothing; without any other the chance is 1.
    """
    tosses = gained + lost
    if 2 * lost <= tosses:  # the sum below wants falling terms
        return 1.0 - _upper_tail(tosses, gained + 1)
    return _upper_tail(tosses, lost)


def _upper_tail(tosses: int, least: int) -> float:
    """P(heads >= least) for least > tosses / 2; summed until a term no longer counts, so large counts stay cheap."""
    if least > tosses:
        return 0.0
    log_ways = math.lgamma(tosses + 1) - math.lgamma(least + 1) - math.lgamma(tosses - least + 1)
    term = math.exp(log_ways - tosses * math.log(2))
    total = 0.0
    for heads in range(least, tosses + 1):
        if term <= total * 1e-17:
            break
        total += term
        term *= (tosses - heads) / (heads + 1)
    return total
