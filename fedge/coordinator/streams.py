"""A fleet's figures of its stream, from the clients' counts: what came, what was trained on, what the network knows.

    ttt         test-then-train accuracy, beside `blind`, which repeats the last label and never looks
    future      accuracy on held-out frames of the next interval, after the round's training: near-future accuracy
    past        the same on held-out frames of the first interval
    anytime     mean over the rounds of `future`
    forgetting  the best `past` of any round, less the last one's;  backward: the last one's less the first one's
    alarms      how often devices' drift detectors found their errors changed for the worse, where there are any
    recovered_h per drift: hours from its beginning until `future` is back at 95 % of its mean before; None: never

All are shares of sums over the clients, so a client with more frames weighs more. Hours are of the stream, which begins
one interval before round 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedge.coordinator.paired import mean
from fedge.protocol.report import STREAM_FIELDS
from fedge.scenario.schema import Scenario
from fedge.scenario.stream.section import Drift

Row = Mapping[str, Any]
Figures = dict[str, Any]

RECOVERED = 0.95
_BEFORE = 3  # rounds before a drift that say how good the fleet was
_AFTER = 24  # rounds from it on that are told one by one


def round_figures(scenario: Scenario, round: int, rows: Iterable[Row]) -> dict[str, Figures]:
    """`{"stream": {...}}` for a line of rounds.jsonl, of the reports that count; empty without a stream."""
    if scenario.data.stream is None:
        return {}
    good = [row for row in rows if row["status"] == "ok"]
    return {"stream": figures_of_counts(scenario, round, _sums(good)) | _alarms(scenario, good)}


def figures_of_counts(scenario: Scenario, round: int, counts: Row) -> Figures:
    """Of a round, from the sums of its counts."""
    return {"hour": round * scenario.availability.round_every_h, **counts, **_shares(counts)}


def run_figures(scenario: Scenario, rounds: Sequence[Row]) -> dict[str, Figures]:
    """`{"stream": {...}}` for summary.json; empty without a stream."""
    if scenario.data.stream is None:
        return {}
    of_rounds: list[Row] = [figures["stream"] for figures in rounds if figures["stream"] is not None]
    counts = _sums(of_rounds)
    future, past = ([row[name] for row in of_rounds if row[name] is not None] for name in ("future", "past"))
    del counts["stored"]  # a state, not a flow: its sum says nothing
    return {
        "stream": {
            **counts,
            **_shares(counts),
            **_alarms(scenario, of_rounds),
            "anytime": mean(future) if future else None,
            "forgetting": max(past) - past[-1] if past else None,
            "backward": past[-1] - past[0] if past else None,
            "drift": [_around(drift, of_rounds) for drift in scenario.data.stream.drift],
        }
    }


def _sums(rows: Sequence[Row]) -> Figures:
    return {name: sum(row[name] for row in rows) for name in STREAM_FIELDS}


def _shares(counts: Row) -> Figures:
    return {
        "trained_share": _share(counts["trained"], counts["arrived"]),
        "ttt": _share(counts["ttt_correct"], counts["ttt_count"]),
        "blind": _share(counts["blind_correct"], counts["ttt_count"]),
        "future": _share(counts["future_correct"], counts["future_count"]),
        "past": _share(counts["past_correct"], counts["past_count"]),
    }


def _alarms(scenario: Scenario, rows: Sequence[Row]) -> Figures:
    """How often devices found that their errors changed for the worse; nothing where none looks."""
    return {} if scenario.schedule.detector is None else {"alarms": sum(row["alarms"] for row in rows)}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _around(drift: Drift, rounds: Sequence[Row]) -> Figures:
    """Near-future accuracy before a drift, at its worst, when it was back, and by the hours since: `after`."""
    known = [(row["hour"], row["future"]) for row in rows_known(rounds)]
    before = [future for hour, future in known if hour < drift.at_h][-_BEFORE:]
    after = [(hour, future) for hour, future in known if hour >= drift.at_h]
    found: Figures = {
        "what": drift.what, "kind": drift.kind, "at_h": drift.at_h, "before": None, "worst": None, "recovered_h": None,
        "after": [(hour - drift.at_h, future) for hour, future in after[:_AFTER]],
    }  # fmt: skip
    if not before or not after:
        return found
    level = mean(before)
    worst_h, worst = min(after, key=lambda pair: (pair[1], pair[0]))
    back = [hour for hour, future in after if hour >= worst_h and future >= RECOVERED * level]
    hours = back[0] - drift.at_h if back else None
    return found | {"before": level, "worst": worst, "recovered_h": hours}


def rows_known(rounds: Sequence[Row]) -> list[Row]:
    """The rounds in which there was something to test on."""
    return [row for row in rounds if row["future"] is not None]
