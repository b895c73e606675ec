"""Who is online in a round, and who goes away during it. `[availability]` of a scenario.

Round r begins at the virtual time  t = start_h + (r - 1) * round_every_h  (hours), whatever the rounds before took:
so availability is a function of (seed, client, round) and a resumed run meets the same devices.

    always  everybody
    markov  each client keeps its state from the round before with probability `persistence`, else is drawn anew:
                P(online at t) = share * exp(kappa * cos(2 pi (t - peak) / 24 h)),  at most 1;  kappa = ln(swing) / 2
            The most and the least of a day differ by the factor `swing`: 4 in Bonawitz et al. (arXiv 1902.01046).
            `peak` differs from client to client by up to 12 h: with tied_to = "data" it is 24 h * tie / 2 later,
            where tie in 0..1 comes from the device's own data; else it is drawn, up to `peak_spread_h` away.
            persistence 0: independent rounds; swing 1: no day and night; share 1, swing 1: always.
    trace   from a CSV of id, start, end (virtual seconds, start included, end not), repeated after its last end.
            Clients take the ids in order of appearance, and again from the first when there are more of them.

During the round a device drops out with probability `dropout` (6 to 10 % in the same source).
"""

import csv
import functools
import itertools
import math
import random
from collections.abc import Callable
from pathlib import Path

from fedge.catalog.text import read_text
from fedge.errors import UserError
from fedge.scenario.fleet import HOUR_S, Availability
from fedge.seeding import derive_seed

Online = Callable[[int, int, float | None], bool]


class Presence:
    """Who is there in one run. UserError: a trace that cannot be read."""

    def __init__(self, settings: Availability, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        kinds: dict[str, Callable[[], Online]] = {
            "always": lambda: lambda client, round, tie: True,
            "markov": lambda: _Markov(settings, seed),
            "trace": lambda: _Trace(settings),
        }
        self._online = kinds[settings.kind]()

    def is_online(self, client: int, round: int, tie: float | None = None) -> bool:
        """Whether `client` is there when `round` (from 1) begins. `tie`: 0..1 from the client's own data, which
        only the device can know; it moves the peak hour where `tied_to` is "data", and is needed then."""
        return self._online(client, round, tie)

    def dropout_point(self, client: int, round: int) -> float | None:
        """The share of its work, in 0..1, after which `client` goes away in `round`; None: it stays."""
        generator = random.Random(derive_seed(self._seed, client, round, "dropout"))
        return generator.random() if generator.random() < self._settings.dropout else None


class _Markov:
    """The two-state chain of the module's docstring; remembers each client's latest state."""

    def __init__(self, settings: Availability, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        self._latest: dict[int, tuple[int, float | None, bool]] = {}

    def __call__(self, client: int, round: int, tie: float | None) -> bool:
        known, known_tie, online = self._latest.get(client, (0, tie, False))
        if known > round or known_tie != tie:
            known, online = 0, False
        peak_h = self._peak_h(client, tie)
        for step in range(known + 1, round + 1):
            generator = random.Random(derive_seed(self._seed, client, step, "availability"))
            keeps = step > 1 and generator.random() < self._settings.persistence
            if not keeps:
                online = generator.random() < self._share(step, peak_h)
        self._latest[client] = (round, tie, online)
        return online

    def _peak_h(self, client: int, tie: float | None) -> float:
        settings = self._settings
        if settings.tied_to == "data":
            if tie is None:
                raise UserError(
                    "availability.tied_to is 'data'; only a device can say whether it is online then"
                )
            return settings.peak_h + 12 * tie
        draw = random.Random(derive_seed(self._seed, client, "peak hour")).uniform(-1, 1)
        return settings.peak_h + settings.peak_spread_h * draw

    def _share(self, round: int, peak_h: float) -> float:
        settings = self._settings
        angle = 2 * math.pi * (settings.time_s(round) / HOUR_S - peak_h) / 24
        return min(1.0, settings.share * math.exp(math.log(settings.swing) / 2 * math.cos(angle)))


class _Trace:
    def __init__(self, settings: Availability) -> None:
        self._settings = settings
        self._spans = list(read_trace(Path(settings.path or "")).values())
        self._period_s = max(end for spans in self._spans for _, end in spans)

    def __call__(self, client: int, round: int, tie: float | None) -> bool:
        time_s = self._settings.time_s(round) % self._period_s
        return any(start <= time_s < end for start, end in self._spans[client % len(self._spans)])


@functools.lru_cache(maxsize=4)
def read_trace(path: Path) -> dict[str, tuple[tuple[float, float], ...]]:
    """id -> its spans (start, end) in virtual seconds. UserError, with the line, for anything else than that."""
    try:
        text = read_text(path)
    except UserError as error:
        raise UserError(f"availability.path {error}") from None
    rows = list(csv.reader(text.splitlines()))
    if not rows or [name.strip() for name in rows[0]] != ["id", "start", "end"]:
        raise UserError(f"{path}: the first line must be 'id,start,end'")
    spans = [_span(path, number, row) for number, row in enumerate(rows[1:], start=2) if row]
    if not spans:
        raise UserError(f"{path} holds no line but its first; give at least one span: id,start,end")
    order = {name: place for place, name in enumerate(dict.fromkeys(span[0] for span in spans))}
    spans.sort(key=lambda span: order[span[0]])
    return {
        name: tuple((start, end) for _, start, end in group)
        for name, group in itertools.groupby(spans, key=lambda span: span[0])
    }


def _span(path: Path, number: int, row: list[str]) -> tuple[str, float, float]:
    try:
        name, start, end = row[0].strip(), float(row[1]), float(row[2])
        if len(row) == 3 and 0 <= start < end < math.inf:
            return name, start, end
    except (ValueError, IndexError):
        pass
    raise UserError(
        f"{path}, line {number}: '{','.join(row)}' is not id,start,end with 0 <= start < end in seconds"
    )
