"""What a study's arms were worth before a drift and round by round after it, from the cells' summaries alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedge.console.phases import percent
from fedge.coordinator.paired import mean
from fedge.results.run_folder import SUMMARY

_MOST = 8  # rounds after a drift that a table shows


def drift_tables(out: Path, summary: Mapping[str, Any]) -> str:
    """For table.md: per drift a table of near-future accuracy, an arm a line; empty where nothing drifts.

    summary: study.json. Figures are means over an arm's cells; a cell that could not be asked in a round is left out of
    that round's.
    """
    arms = {
        arm: [_drifts(out / "cells" / cell) for cell in figures["cells"]]
        for arm, figures in summary["arms"].items()
    }
    most = max((len(drifts) for cells in arms.values() for drifts in cells), default=0)
    return "".join(_table(arms, place) for place in range(most))


def _drifts(cell: Path) -> Sequence[Mapping[str, Any]]:
    found = json.loads((cell / SUMMARY).read_text(encoding="utf-8"))
    drifts: Sequence[Mapping[str, Any]] = (found.get("stream") or {}).get("drift", ())
    return drifts


def _table(arms: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], place: int) -> str:
    of_arms = {arm: [drifts[place] for drifts in cells if len(drifts) > place] for arm, cells in arms.items()}
    known = {arm: drifts for arm, drifts in of_arms.items() if drifts}
    what = next(iter(known.values()))[0]
    hours = sorted({hour for drifts in known.values() for drift in drifts for hour, _ in drift["after"]})[
        :_MOST
    ]
    rows = [("arm", "before", *(f"+{hour:g} h" for hour in hours), "back after")]
    rows += [("---",) * len(rows[0])]
    rows += [
        (
            arm,
            _mean([drift["before"] for drift in drifts]),
            *(_mean([dict(drift["after"]).get(hour) for drift in drifts]) for hour in hours),
            _back([drift["recovered_h"] for drift in drifts]),
        )
        for arm, drifts in known.items()
    ]
    lines = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return (
        f"\nNear-future accuracy around the drift of {what['what']} at {what['at_h']:g} h, by the hour of the round; "
        f"back: at 95 % of before.\n\n{lines}\n"
    )


def _mean(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    return percent(mean(there)) if there else "-"


def _back(hours: Sequence[float | None]) -> str:
    there = [hour for hour in hours if hour is not None]
    never = len(hours) - len(there)
    said = f"{mean(there):.3g} h" if there else ""
    return f"{said}{', ' if said and never else ''}{f'never in {never} of {len(hours)}' if never else ''}"
