"""What a study's table says of a drift, from summaries that are written by hand."""

import json
from pathlib import Path
from typing import Any

from fedge.study.stream.drifts import drift_tables


def cell(out: Path, name: str, *drifts: dict[str, Any]) -> None:
    folder = out / "cells" / name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"stream": {"drift": drifts}} if drifts else {}))


def drift(after: list[float | None], back: float | None, before: float = 0.8) -> dict[str, Any]:
    points = [(float(hour), value) for hour, value in enumerate(after)]
    return {"what": "classes", "at_h": 6.0, "before": before, "recovered_h": back, "after": points}


def test_arms_stand_side_by_side_by_the_hour(tmp_path: Path) -> None:
    """Breaks if arms are compared at other hours, or if a run that never came back counts as one that did."""
    cell(tmp_path, "a1", drift([0.1, 0.5], 3.0))
    cell(tmp_path, "a2", drift([0.3, 0.7], 5.0, before=0.9))
    cell(tmp_path, "b1", drift([0.2, None], None))
    cell(tmp_path, "b2", drift([0.2, 0.4], 2.0))
    table = drift_tables(tmp_path, {"arms": {"one": {"cells": ["a1", "a2"]}, "two": {"cells": ["b1", "b2"]}}})
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert lines[0] == "| arm | before | +0 h | +1 h | back after |"
    assert lines[2] == "| one | 85.0% | 20.0% | 60.0% | 4 h |"
    assert lines[3] == "| two | 80.0% | 20.0% | 40.0% | 2 h, never in 1 of 2 |"
    assert "classes at 6 h" in table


def test_where_nothing_drifts_there_is_no_table(tmp_path: Path) -> None:
    """Breaks if every study's table grows by an empty one."""
    cell(tmp_path, "a1")
    assert drift_tables(tmp_path, {"arms": {"one": {"cells": ["a1"]}}}) == ""
