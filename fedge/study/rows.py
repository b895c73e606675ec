"""A study's outcomes, a row per arm, cell and client, from its folder alone."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedge.errors import UserError
from fedge.results.run_folder import SCENARIO, read_reports
from fedge.study.outcome import outcomes


def study_rows(out: Path, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The counts of every client on its test rows, and what its rounds cost; `summary` is study.json.

    Arms come in the study's order, cells in that of worlds and seeds, clients by number. An arm that asks for the same
    run as another has rows of its own. `unseen`, `served` and what the near future brought are columns where they say
    anything.
    """
    rows: list[dict[str, Any]] = []
    for arm, figures in summary["arms"].items():
        for cell in figures["cells"]:
            folder = out / "cells" / cell
            whose = {"arm": arm, **_run(folder), "cell": cell}
            rows += [
                {**whose, **vars(outcome)}
                | {"accuracy": outcome.accuracy, "factory": outcome.factory, "told": outcome.told}
                for outcome in outcomes(read_reports(folder), summary["select"])
            ]
    usual = {"unseen": False, "served": None, "future_correct": None, "future_count": None}
    left_out = {key for key, value in usual.items() if all(row[key] is value for row in rows)}
    return [{key: value for key, value in row.items() if key not in left_out} for row in rows]


def _run(folder: Path) -> dict[str, int]:
    """The world and the seed of the training that a cell was run with."""
    try:
        scenario = tomllib.loads((folder / SCENARIO).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / SCENARIO} cannot be read ({error}): run the study again") from None
    seed = scenario["seed"]
    return {"world": scenario["data"].get("seed", seed), "seed": seed}
