"""An arm that leaves the grid open as the baseline: arms are compared at each point of it, and streams with them."""

import re
from pathlib import Path

import pytest

from fedge.errors import UserError
from fedge.page.study_page import answer
from fedge.study.cells import Cell, cells_of
from fedge.study.outcome import outcomes
from fedge.study.study import load_study
from fedge.study.summary import CellResult, summarise
from fedge.study.table import table_md, verdicts

ORDERS = """
scenario = "parked-camera"
worlds = [7, 8]
baseline = "first"
[every]
rounds = 9
data.stream.memory = 60
[grid]
"data.stream.order" = ["iid", "runs"]
[arms.first]
[arms.second]
data.stream.memory = 70
"""


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def finished(cell: Cell, right: int, future: int, *, clients: int = 2) -> CellResult:
    """Clients with 10 test rows and 20 held-out frames in each of two rounds."""
    rows = [
        {"status": "ok", "round": round, "client": client, "device": "pi", "macs_done": 5, "energy_j": 1.0,
         "test_count": 10, "test_correct": right, "factory_correct": 5, "told_correct": 5,
         "test_gained": max(0, right - 5), "test_lost": max(0, 5 - right),
         "future_correct": future - client, "future_count": 20}
        for round in (1, 2) for client in range(clients)
    ]  # fmt: skip
    cost = {"macs": 10, "energy_j": 2.0, "time_s": 1.0, "bytes": 9}
    stream = {"future": future / 20, "ttt": 0.5, "blind": 0.6, "trained_share": 0.7}
    return CellResult(cell, outcomes(rows, "last"), cost, stream=stream)


def test_every_arm_has_what_is_asked_of_every_one(tmp_path: Path) -> None:
    """Breaks if a study's common changes reach the first arm alone, or go over an arm's own."""
    study, path = load_study(written(tmp_path, ORDERS))
    cells = {cell.arm: cell.scenario for cell in cells_of(study, path.parent)}
    assert [scenario.rounds for scenario in cells.values()] == [9] * 4
    memory = {arm: scenario.data.stream.memory for arm, scenario in cells.items() if scenario.data.stream}
    assert memory == {
        "first order=iid": 60,
        "first order=runs": 60,
        "second order=iid": 70,
        "second order=runs": 70,
    }


def test_arms_are_compared_at_their_own_point(tmp_path: Path) -> None:
    """Breaks if an arm on an easy stream beats another one on a hard stream."""
    study, path = load_study(written(tmp_path, ORDERS))
    right = {
        "first order=iid": (9, 18),
        "first order=runs": (3, 6),
        "second order=iid": (8, 16),
        "second order=runs": (5, 12),
    }
    summary = summarise(
        "mine", study, [finished(cell, *right[cell.arm]) for cell in cells_of(study, path.parent)]
    )
    gains = {arm: figures["gain"]["mean"] for arm, figures in summary["arms"].items()}
    assert list(gains) == ["first order=iid", "second order=iid", "first order=runs", "second order=runs"]
    assert list(gains.values()) == pytest.approx([0, -0.1, 0, 0.2])
    near = {arm: figures["stream"]["gain"] for arm, figures in summary["arms"].items()}
    assert list(near.values()) == pytest.approx([0, -0.1, 0, 0.3])
    assert summary["fronts"]["accuracy"]["macs"]["dominated"] == {
        "second order=iid": "first order=iid",
        "first order=runs": "second order=runs",
    }
    said = verdicts(summary)
    assert "second order=runs is above first order=runs by +20.0 to +20.0 points." in said
    assert not [line for line in said if "order=iid" in line and "order=runs" in line]
    assert "<b>second order=runs</b>: <b>" in answer(summary) and "over first order=runs" in answer(summary)
    assert (
        "| second order=runs | 60.0% | +30.0 pp | +30.0 to +30.0 | 50.0% | 60.0% | 70.0% | 2 |"
        in table_md(summary)
    )


def test_without_a_stream_nothing_is_said_of_one(tmp_path: Path) -> None:
    """Breaks if a table of devices that hold their rows from the start has columns of dashes."""
    text = 'scenario = "quickstart"\n[arms.a]\n'
    study, path = load_study(written(tmp_path, text))
    (cell,) = cells_of(study, path.parent)
    rows = [
        {"status": "ok", "round": 1, "client": 0, "device": "pi", "macs_done": 5, "energy_j": 1.0, "test_count": 10,
         "test_correct": 7, "factory_correct": 5, "told_correct": 5, "test_gained": 2, "test_lost": 0}
    ]  # fmt: skip
    result = CellResult(cell, outcomes(rows, "last"), {"macs": 1, "energy_j": 1.0, "time_s": 1.0, "bytes": 1})
    summary = summarise("mine", study, [result])
    assert "stream" not in summary["arms"]["a"] and "near future" not in table_md(summary)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            ORDERS + 'data.stream.order = "parked"\n',
            "baseline is the arm 'first' at each point of the grid, and 'second' has no such point",
        ),
        (ORDERS.replace("rounds = 9", "seed = 3"), "every sets 'seed': the study's `worlds` and `seeds` do"),
    ],
)
def test_what_cannot_be_compared_is_refused(text: str, line: str, tmp_path: Path) -> None:
    """Breaks if an arm is shown with gains over nothing."""
    with pytest.raises(UserError, match=re.escape(line)):
        load_study(written(tmp_path, text))
