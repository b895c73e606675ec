"""What one client had at the end of one cell, from its reports alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """One client's counts on its own test rows, of the round that counts for it, and what all its rounds cost.

    told_correct: None where no class is asked for. gained, lost: rows answered better, and worse, than by the factory
    model. decisions: answers per row, its labels. error_sum, factory_error_sum: of numbers, in the data's unit.
    unseen: nobody has learnt from it, and its one round came after all others. served: the round of the network that
    serves, 0 the factory model's; None: the last round's does. future_correct, future_count: of a stream, on held-out
    frames of the near future, over all rounds; None without one.
    """

    client: int
    device: str
    round: int
    correct: int
    count: int
    factory_correct: int
    told_correct: int | None
    gained: int
    lost: int
    macs: int
    energy_j: float
    decisions: int = 1
    error_sum: float | None = None
    factory_error_sum: float | None = None
    unseen: bool = False
    served: int | None = None
    future_correct: int | None = None
    future_count: int | None = None

    @property
    def accuracy(self) -> float:
        return self.correct / (self.count * self.decisions)

    @property
    def factory(self) -> float:
        return self.factory_correct / (self.count * self.decisions)

    @property
    def told(self) -> float | None:
        return None if self.told_correct is None else self.told_correct / self.count

    @property
    def future(self) -> float | None:
        """Near-future accuracy; None without a stream, and where it brought nothing to test on."""
        return (self.future_correct or 0) / self.future_count if self.future_count else None

    @property
    def is_worse(self) -> bool:
        """Than the factory model, by a right answer or by the error of numbers."""
        if self.error_sum is None or self.factory_error_sum is None:
            return self.correct < self.factory_correct
        return self.error_sum > self.factory_error_sum


def outcomes(reports: Iterable[Row], select: str) -> list[Outcome]:
    """One for each client that reported and has test rows, in client order.

    select: "last", its last good report; "validation", the one of its best validation accuracy, or least
    error of numbers, the later of equals.
    """
    good: dict[int, list[Row]] = {}
    for row in reports:
        if row["status"] == "ok":
            good.setdefault(row["client"], []).append(row)
    return [_outcome(rows, select) for _, rows in sorted(good.items()) if rows[-1]["test_count"]]


def _outcome(rows: list[Row], select: str) -> Outcome:
    chosen = rows[-1] if select == "last" else max(rows, key=_validation)
    return Outcome(
        client=chosen["client"],
        device=chosen["device"],
        round=chosen["round"],
        correct=chosen["test_correct"],
        count=chosen["test_count"],
        factory_correct=chosen["factory_correct"],
        told_correct=chosen.get("told_correct"),
        gained=chosen.get("test_better", chosen["test_gained"]),
        lost=chosen.get("test_worse", chosen["test_lost"]),
        macs=sum(row["macs_done"] for row in rows),
        energy_j=sum(row["energy_j"] for row in rows),
        decisions=chosen.get("decisions", 1),
        error_sum=chosen.get("test_error_sum"),
        factory_error_sum=chosen.get("factory_error_sum"),
        unseen=chosen.get("unseen", False),
        served=chosen.get("served"),
        future_correct=_sum(rows, "future_correct"),
        future_count=_sum(rows, "future_count"),
    )


def _sum(rows: list[Row], name: str) -> int | None:
    """Over the rounds; None where they do not say."""
    return sum(row[name] for row in rows) if name in rows[0] else None


def _validation(row: Row) -> tuple[float, int]:
    """The higher the better: right answers, or the error of numbers, less than which is more."""
    count = row["validation_count"]
    of = row["validation_correct"] if "validation_error_sum" not in row else -row["validation_error_sum"]
    return (of / count if count else 0.0), row["round"]
