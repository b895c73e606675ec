"""What a holder's rows are for: training, validation, test. And the plain way to say it, at random row by row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ClientRows:
    """Row numbers of one holder's data, int64, in the order they will be stored."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.train, self.validation, self.test


@dataclass(frozen=True, eq=False)
class DividedRows:
    """`factory` has training rows only; `clients[i]` are client i's. `gap` rows were dropped between parts, so that
    none shares a sample with a row of another part."""

    factory: ClientRows
    clients: tuple[ClientRows, ...]
    gap: int = 0


def split_rows(rows: np.ndarray, fractions: Sequence[float], seed: int) -> ClientRows:
    """Cut `rows` at random by `fractions`. Ends are rounded, training gets at least one: 1 row -> 1 | 0 | 0,
    2 -> 1 | 1 | 0, 4 -> 2 | 1 | 1, 5 -> 3 | 1 | 1 with 0.6, 0.2, 0.2."""
    rows = np.random.default_rng(seed).permutation(rows)
    train_end = max(1, round(fractions[0] * len(rows)))
    validation_end = max(train_end, round((fractions[0] + fractions[1]) * len(rows)))
    return ClientRows(*np.split(rows, [train_end, validation_end]))
