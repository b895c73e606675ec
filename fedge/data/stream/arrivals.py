"""When frames come: by a Poisson process, or as a trace says. Frames of a client are numbered from 0 as they come.

Interval k (from 1) is the virtual time ((k - 1) H, k H], H = interval_h. By a Poisson process its number of frames is
drawn from Poisson(rate * H), and their times are uniform in it.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedge.catalog.text import read_text
from fedge.errors import UserError
from fedge.seeding import derive_seed

Times = NDArray[np.float64]


class Arrivals(Protocol):
    """Of one client."""

    def of(self, interval: int) -> tuple[int, Times]:
        """The number of the first frame of `interval` (from 1), and the hours at which its frames come, rising [F]."""
        ...


@dataclass(frozen=True)
class PoissonArrivals:
    """`rate_per_h` frames an hour on average; `seed` is the client's."""

    rate_per_h: float
    interval_h: float
    seed: int

    def of(self, interval: int) -> tuple[int, Times]:
        """The counts of all intervals come from one generator, one after the other."""
        counts = np.random.default_rng(derive_seed(self.seed, "counts"))
        count_K = counts.poisson(self.rate_per_h * self.interval_h, interval)
        times = np.random.default_rng(derive_seed(self.seed, "times", interval))
        into_F = np.sort(1 - times.random(count_K[-1]))  # in (0, 1]
        return int(count_K[:-1].sum()), (interval - 1 + into_F) * self.interval_h


@dataclass(frozen=True, eq=False)
class TracedArrivals:
    """At the hours `time_h`, rising [N]."""

    time_h: Times
    interval_h: float

    def of(self, interval: int) -> tuple[int, Times]:
        ends_h = np.array([interval - 1, interval]) * self.interval_h
        first, last = np.searchsorted(self.time_h, ends_h, side="right").tolist()
        return first, self.time_h[first:last]


def read_trace(path: Path, clients: int) -> list[Times]:
    """The hours of each client's arrivals, rising, from a csv with the columns client and time_h (above 0).

    UserError: no such file, other columns, a client that there is not, an hour that is none.
    """
    try:
        lines = csv.DictReader(read_text(path).splitlines())
        names = list(lines.fieldnames or ())
        rows = list(lines)
    except csv.Error as error:
        raise UserError(f"data.stream.trace {path} is no csv file: {error}") from None
    if not {"client", "time_h"} <= set(names):
        raise UserError(
            f"data.stream.trace {path} has the columns {', '.join(names)}; client and time_h are wanted"
        )
    times: list[list[float]] = [[] for _ in range(clients)]
    for line, row in enumerate(rows, start=2):
        client, time_h = _parsed(path, line, row["client"], row["time_h"])
        if not 0 <= client < clients:
            raise UserError(
                f"data.stream.trace {path}, line {line}: client is {client}; the fleet has 0 to {clients - 1}"
            )
        times[client].append(time_h)
    return [np.sort(np.array(own, np.float64)) for own in times]


def _parsed(path: Path, line: int, client: str, time_h: str) -> tuple[int, float]:
    try:
        parsed = int(client), float(time_h)
    except (TypeError, ValueError):
        parsed = -1, math.nan
    if not 0 < parsed[1] < math.inf:
        raise UserError(
            f"data.stream.trace {path}, line {line}: got {client!r},{time_h!r}; a client's number and an hour above 0 "
            "are wanted"
        )
    return parsed


def write_times(path: Path, times: Sequence[Times]) -> None:
    """All clients' arrivals in one file, of which `own_times` reads one client's."""
    offsets = np.cumsum([0, *(len(own) for own in times)])
    np.savez(path, times=np.concatenate([*times, np.empty(0)]), offsets=offsets)


def own_times(path: Path, client: int) -> Times:
    """The hours of one client's arrivals, rising. UserError where they are not there."""
    try:
        with np.load(path) as file:
            first, last = file["offsets"][client : client + 2]
            own: Times = file["times"][first:last]
            return own
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: the stream's arrivals cannot be read ({error}): prepare the data anew"
        ) from None
