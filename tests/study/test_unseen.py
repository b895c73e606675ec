"""A study's clients that nobody learns from: the same in every arm, with figures of their own."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedge.fleet.newcomers import unseen_clients
from fedge.launch import RunResult
from fedge.page.study_page import study_page
from fedge.study.cells import cells_of
from fedge.study.outcome import outcomes
from fedge.study.rows import study_rows
from fedge.study.study import Study
from fedge.study.summary import CellResult, read_cell, summarise
from fedge.study.table import table_md, verdicts

ARMS = {"dense": "client=dense", "edge": "client=edge"}
BRIEF = ("rounds=1", "schedule={kind='train_only'}", *(f"fleet.{index}.count=1" for index in range(3)))
STUDY = Study(
    scenario="quickstart", worlds=(7,), seeds=(1,), unseen=0.3, baseline="dense",
    arms={arm: {"client": arm} for arm in ARMS},
)  # fmt: skip


def test_every_cell_leaves_out_the_same_clients() -> None:
    """Breaks if an arm's own schedule, or a seed of the training, brings other clients in."""
    study = Study(
        scenario="quickstart", worlds=(7, 8), seeds=(1, 2), unseen=0.25,
        arms={"one": {}, "other": {"schedule": {"kind": "train_only"}, "training.epochs": 2}},
    )  # fmt: skip
    cells = cells_of(study, Path())
    for world in (7, 8):
        found = {unseen_clients(cell.scenario) for cell in cells if cell.world == world}
        assert len(found) == 1 and len(found.pop()) == 3
    assert {cell.scenario.schedule.kind for cell in cells if cell.arm == "other"} == {"train_only"}
    without = cells_of(study.model_copy(update={"unseen": None}), Path())
    assert not any(unseen_clients(cell.scenario) for cell in without)


def test_figures_stand_beside_those_of_the_others(finished: Callable[..., RunResult], tmp_path: Path) -> None:
    """Breaks if a mean, a gain or a cost of one kind of client holds one of the other."""
    runs = {arm: finished(*BRIEF, "schedule.unseen=0.3", change) for arm, change in ARMS.items()}
    cells = cells_of(STUDY, Path())
    for cell in cells:
        shutil.copytree(runs[cell.arm].out, cell.folder(tmp_path))
    summary = summarise("mine", STUDY, [read_cell(cell, tmp_path, STUDY.select) for cell in cells])
    last = {arm: run.reports() for arm, run in runs.items()}  # one of each client
    for unseen in (False, True):
        found = {
            arm: {row["client"]: row for row in rows if ("unseen" in row) is unseen}
            for arm, rows in last.items()
        }
        shares = {
            arm: {client: row["test_correct"] / row["test_count"] for client, row in rows.items()}
            for arm, rows in found.items()
        }
        gains = [shares["edge"][client] - shares["dense"][client] for client in shares["edge"]]
        assert len(gains) == (1 if unseen else 2)
        figures = summary["arms"]["edge"]["unseen"] if unseen else summary["arms"]["edge"]
        assert figures["accuracy"]["mean"] == pytest.approx(sum(shares["edge"].values()) / len(gains))
        assert figures["gain"]["mean"] == pytest.approx(sum(gains) / len(gains))
        rows = [row for row in runs["edge"].reports() if ("unseen" in row) is unseen]
        assert figures["cost"]["macs"] == sum(row["macs_done"] for row in rows)
        assert figures["cost"]["energy_j"] == pytest.approx(sum(row["energy_j"] for row in rows))
    costs = [summary["arms"]["edge"]["cost"], summary["arms"]["edge"]["unseen"]["cost"]]
    assert sum(cost["bytes"] for cost in costs) == runs["edge"].summary["egress"]["bytes"]
    table = table_md(summary)
    assert "nobody learns from" in table and table.count("| edge |") == 2
    rows = study_rows(tmp_path, summary)
    assert sum(row["unseen"] for row in rows) == 2 and len(rows) == 6
    page = study_page(tmp_path, summary, rows, verdicts(summary))
    assert "<h2>Clients nobody learns from</h2>" in page and "3 clients and runs" not in page
    assert "2 clients and runs. Hollow" in page


def test_who_keeps_the_factory_model_is_a_figure_of_the_arm() -> None:
    """Breaks if an arm that serves others than the last network does not say how many it leaves as they were."""
    row = {"status": "ok", "device": "pi", "macs_done": 5, "energy_j": 1.0, "test_count": 10, "test_correct": 6,
           "factory_correct": 6, "told_correct": 6, "test_gained": 0, "test_lost": 0, "round": 2}  # fmt: skip
    found = outcomes(
        [row | {"client": client, "served": of} for client, of in enumerate((0, 2, 0, 1))], "last"
    )
    cell = CellResult(
        cells_of(STUDY, Path())[0], found, dict.fromkeys(("macs", "energy_j", "time_s", "bytes"), 1.0)
    )
    study = STUDY.model_copy(update={"baseline": "factory"})
    summary = summarise("mine", study, [cell])
    assert summary["arms"]["dense"]["served"] == {"factory": 0.5}
    assert "dense leaves 50.0% of the clients with the factory model." in verdicts(summary)
    plain = replace(cell, outcomes=[replace(outcome, served=None) for outcome in found])
    assert "served" not in summarise("mine", study, [plain])["arms"]["dense"]


def test_without_them_nothing_is_said(finished: Callable[..., RunResult], tmp_path: Path) -> None:
    """Breaks if a study without unseen clients has a column, a table or a section of them."""
    study = STUDY.model_copy(update={"unseen": None, "baseline": "factory"})
    cells = cells_of(study, Path())
    for cell in cells:
        shutil.copytree(finished(*BRIEF, ARMS[cell.arm]).out, cell.folder(tmp_path))
    summary = summarise("mine", study, [read_cell(cell, tmp_path, study.select) for cell in cells])
    rows = study_rows(tmp_path, summary)
    assert not any("unseen" in figures for figures in summary["arms"].values())
    assert not any({"unseen", "served"} & row.keys() for row in rows) and "learns from" not in table_md(
        summary
    )
