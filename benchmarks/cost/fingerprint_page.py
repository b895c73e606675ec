"""The fingerprint's page: errors by question and predictor, by network, and the levels that were found."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from benchmarks.measure.results import Row
from benchmarks.measure.table import by_machine, markdown

QUESTIONS = {
    "levels": "other levels of the four networks",
    "batch": "other batches (16, 64)",
    "unseen": "networks never timed",
    "unseen, 6 probes": "the same with 6 probes of their own",
    "keep": "error maps pruned to 0.25, 0.5; other levels",
    "filter": "a filter that keeps 0.4 of 32",
}
PREDICTORS = ("width", "trees", "five terms", "two terms", "nearest level", "one timed step")


def page(rows: list[Row]) -> str:
    """One part per machine."""
    return "\n\n".join(_part(machine, here) for machine, here in by_machine(rows).items())


def _part(machine: str, rows: Sequence[Row]) -> str:
    noise = [row["noise"] for row in rows if row["question"] in QUESTIONS]
    rounds = rows[0]["rounds"]
    load = sorted(row["load"] for row in rows)
    heads = [
        f"{machine}; {rounds} round{'s' * (rounds > 1)}, load of the machine {load[0]:.1f} to {load[-1]:.1f}.",
        "Mean error in %, its 90th percentile in brackets. One timed step is one of the steps that the median is of.",
        "Noise: how far the first and the last round's medians lie apart" + _told(noise, rounds),
    ]
    parts = [" ".join(heads), _by_question(rows)]
    parts += [
        f"By network:\n\n{_by_network(rows)}",
        f"The level that a search by time finds:\n\n{_levels(rows)}",
    ]
    return "\n\n".join(parts)


def _told(noise: Sequence[float], rounds: int) -> str:
    return f"; over all steps asked {_percent(noise)}." if rounds > 1 else "; of one round, not known."


def _by_question(rows: Sequence[Row]) -> str:
    lines = []
    for question, words in QUESTIONS.items():
        asked = [row for row in rows if row["question"] == question]
        if asked:
            lines.append([words, len(asked), *_errors(asked), _noise(asked)])
    return markdown(["steps", "n", *PREDICTORS, "noise"], lines)


def _by_network(rows: Sequence[Row]) -> str:
    lines = []
    for question in QUESTIONS:
        for name in sorted({row["model"] for row in rows if row["question"] == question}):
            asked = [row for row in rows if row["question"] == question and row["model"] == name]
            lines.append([question, name, *_errors(asked), _noise(asked)])
    return markdown(["steps", "network", *PREDICTORS, "noise"], lines)


def _noise(rows: Sequence[Row]) -> str:
    return _percent([row["noise"] for row in rows]) if rows[0]["rounds"] > 1 else ""


def _errors(rows: Sequence[Row]) -> list[str]:
    return [
        _percent([abs(row["off"][name]) for row in rows if row["off"].get(name) is not None])
        for name in PREDICTORS
    ]


def _percent(shares: Sequence[float]) -> str:
    return f"{100 * fmean(shares):.1f} ({100 * float(np.percentile(shares, 90)):.0f})" if shares else ""


def _levels(rows: Sequence[Row]) -> str:
    found = [row for row in rows if row["question"] == "level found"]
    kinds = sorted({kind for row in found for kind in row["found"]})
    lines = [
        [row["model"], row["share"], _level(row["timed"]), *(_level(row["found"][kind]) for kind in kinds)]
        for row in found
    ]
    table = markdown(["network", "share of the time", "by timing all", *kinds], lines)
    near = ", ".join(f"{kind} {_near(found, kind)}" for kind in kinds)
    return f"{table}\n\nWithin one step of 5 %, of {len(found)}: {near}."


def _near(rows: Sequence[Row], kind: str) -> int:
    """How many levels are the timed one or its neighbour."""
    pairs = [(row["timed"], row["found"][kind]) for row in rows]
    return sum(
        one == other or (None not in (one, other) and abs(one - other) < 0.051) for one, other in pairs
    )


def _level(level: float | None) -> str:
    return "none" if level is None else f"{level:.2f}"
