"""What a study's arms made of a stream: near-future accuracy, client by client, beside what never looks."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fedge.coordinator.paired import mean
from fedge.seeding import derive_seed
from fedge.study.outcome import Outcome
from fedge.study.paired import matrix, two_way_interval

SHARES = ("future", "ttt", "blind", "trained_share")

Run = tuple[int, int]  # world, seed


class Result(Protocol):
    """A finished cell, as far as it is read here."""

    @property
    def run(self) -> Run: ...
    @property
    def outcomes(self) -> Sequence[Outcome]: ...
    @property
    def stream(self) -> Mapping[str, Any] | None:
        """Of summary.json."""
        ...


def stream_figures(arm: str, results: Sequence[Result], rivals: Sequence[Result]) -> dict[str, Any]:
    """`{"stream": ...}` of an arm: means over its runs, and how far its near-future accuracy, over all rounds, is above
    that of the rivals, the baseline's runs; nothing without a stream. gain, interval: None without rivals."""
    told = [result.stream for result in results if result.stream is not None]
    if not told:
        return {}
    runs = {run: index for index, run in enumerate(sorted(result.run for result in results))}
    base = {result.run: _futures(result) for result in rivals}
    gains = {
        (client, runs[result.run]): future - base[result.run][client]
        for result in results
        for client, future in _futures(result).items()
        if client in base.get(result.run, {})
    }
    return {
        "stream": {
            **{name: _mean([stream[name] for stream in told]) for name in SHARES},
            "gain": mean(list(gains.values())) if gains else None,
            "interval": two_way_interval(matrix(gains), derive_seed(0, "study", arm, "future"))
            if gains
            else None,
        }
    }


def _futures(result: Result) -> dict[int, float]:
    return {outcome.client: outcome.future for outcome in result.outcomes if outcome.future is not None}


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return mean(there) if there else None
