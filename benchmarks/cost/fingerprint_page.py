"""The fingerprint's page: errors by question and predictor, by network, and the levels that were found."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from sklearn.isotonic import IsotonicRegression

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
SHARES = (0.7, 0.5)
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
        f"The level found by time, beside the one by timing all twenty, made monotone:\n\n{_levels(rows)}",
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
    """Of each network and share: the lowest level whose step takes at most that share of the whole network's."""
    searched = [row for row in rows if row["question"] == "search"]
    near = dict.fromkeys(PREDICTORS[:4], 0)
    lines = []
    for name in sorted({row["model"] for row in searched}):
        of = sorted((row for row in searched if row["model"] == name), key=lambda row: float(row["level"]))
        timed = _monotone([row["measured_s"] for row in of])
        for share in SHARES:
            by_timing = _lowest(of, timed, share)
            found = {
                kind: _lowest(of, [row["measured_s"] * (1 + row["off"][kind]) for row in of], share)
                for kind in near
            }
            near = {kind: count + (abs(found[kind] - by_timing) < 0.051) for kind, count in near.items()}
            lines.append([name, share, _level(by_timing), *map(_level, found.values())])
    table = markdown(["network", "share of the time", "by timing all", *near], lines)
    words = ", ".join(f"{kind} {count}" for kind, count in near.items())
    return f"{table}\n\nWithin one step of 5 %, of {len(lines)}: {words}."


def _monotone(seconds: Sequence[float]) -> list[float]:
    """The nearest curve that never rises: a network that is cut further takes no longer."""
    order = np.arange(len(seconds))
    fitted = IsotonicRegression(increasing=False).fit_transform(order, np.log(seconds))
    return [float(value) for value in np.exp(fitted)]


def _lowest(of: Sequence[Row], seconds: Sequence[float], share: float) -> float:
    """The lowest level within the share; 1: none is."""
    within = (row["level"] for row, time_s in zip(of, seconds, strict=True) if time_s <= share * seconds[0])
    return float(next(within, 1.0))


def _level(level: float) -> str:
    return "none" if level == 1 else f"{level:.2f}"
