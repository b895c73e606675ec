"""What one client had at the end of one cell, from its reports alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """One client's counts on its own test rows, of the round that counts for it, and what all its rounds cost."""

    client: int
    device: str
    round: int
    correct: int
    count: int
    factory_correct: int
    told_correct: int
    gained: int  # rows that it gets right and the factory model wrong
    lost: int
    macs: int
    energy_j: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.count

    @property
    def factory(self) -> float:
        return self.factory_correct / self.count

    @property
    def told(self) -> float:
        return self.told_correct / self.count


def outcomes(reports: Iterable[Row], select: str) -> list[Outcome]:
    """One for each client that reported and has test rows, in client order.

    select: "last", its last good report; "validation", the one of its best validation accuracy, the later of equals.
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
        told_correct=chosen["told_correct"],
        gained=chosen["test_gained"],
        lost=chosen["test_lost"],
        macs=sum(row["macs_done"] for row in rows),
        energy_j=sum(row["energy_j"] for row in rows),
    )


def _validation(row: Row) -> tuple[float, int]:
    count = row["validation_count"]
    return (row["validation_correct"] / count if count else 0.0), row["round"]
