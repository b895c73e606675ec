"""A whole study: every figure from its reports, the same however it was run, killed or taken up again."""

import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest

import fedge
from fedge.errors import RunError
from fedge.study.run import STUDY, TABLE, StudyResult

pytestmark = pytest.mark.long

TOML = """
scenario = "quickstart"
worlds = [7, 8]
seeds = [1]
select = "validation"
[arms.dense]
"training.pruning.level" = 0.0
"training.instance_filter" = { kind = "none" }
"training.error_maps.keep" = 1.0
[arms.methods]
"""
FAST = ["engine.kind=inline", "rounds=2", "training.epochs=1", "model.factory.epochs=1",
        *(f"fleet.{index}.count=1" for index in range(3))]  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "pays.toml"
    path.write_text(TOML)
    return path


@pytest.fixture(scope="module")
def result(file: Path) -> StudyResult:
    found: StudyResult = fedge.study(file, file.parent / "out", jobs=2, settings=FAST)
    return found


def test_every_figure_is_that_of_the_reports(result: StudyResult) -> None:
    """Breaks if a figure of study.json cannot be had from reports.jsonl alone."""
    for arm, figures in result.summary["arms"].items():
        accuracies, gains, hurt, macs, energy = [], [], [], [], []
        for cell in figures["cells"]:
            lines = (result.out / "cells" / cell / "reports.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines]
            macs.append(sum(row["macs_done"] for row in rows))
            energy.append(sum(row["energy_j"] for row in rows))
            for client in range(3):
                own = [row for row in rows if row["client"] == client and row["status"] == "ok"]
                best = max(own, key=lambda r: (r["validation_correct"] / r["validation_count"], r["round"]))
                accuracies.append(best["test_correct"] / best["test_count"])
                gains.append(accuracies[-1] - best["factory_correct"] / best["test_count"])
                hurt.append(best["test_correct"] < best["factory_correct"])
        assert figures["accuracy"]["mean"] == pytest.approx(statistics.mean(accuracies)), arm
        assert figures["gain"]["mean"] == pytest.approx(statistics.mean(gains))
        assert figures["gain"]["median"] == pytest.approx(statistics.median(gains))
        assert figures["gain"]["worst_decile"] == pytest.approx(min(gains))
        assert figures["gain"]["hurt"]["any"] == statistics.mean(hurt)
        assert figures["cost"]["macs"] == statistics.mean(macs)
        assert figures["cost"]["energy_j"] == pytest.approx(statistics.mean(energy))


def test_one_job_does_what_two_do(file: Path, result: StudyResult) -> None:
    """Breaks if a study's answer depends on how many cells run at a time."""
    alone = fedge.study(file, file.parent / "alone", jobs=1, settings=FAST)
    for name in (STUDY, TABLE):
        assert (alone.out / name).read_bytes() == (result.out / name).read_bytes()


def test_a_study_that_is_done_runs_nothing(file: Path, result: StudyResult) -> None:
    """Breaks if a second call runs cells again."""
    cells = sorted((result.out / "cells").glob("*/summary.json"))
    before = [path.stat().st_mtime_ns for path in cells]
    again = fedge.study(file, result.out, settings=FAST)
    assert [path.stat().st_mtime_ns for path in cells] == before
    assert again.summary == result.summary


def test_a_row_per_arm_run_and_client(result: StudyResult) -> None:
    """Breaks if pandas users have to read the cells themselves."""
    frame = result.frame()
    assert len(frame) == 2 * 2 * 3
    assert frame.groupby("arm").accuracy.mean().to_dict() == pytest.approx(
        {arm: figures["accuracy"]["mean"] for arm, figures in result.summary["arms"].items()}
    )


def test_a_cell_that_fails_leaves_the_others(tmp_path: Path) -> None:
    """Breaks if one arm's mistake costs the others' runs, or passes unsaid."""
    (tmp_path / "bad.py").write_text(
        (Path(fedge.__file__).parents[1] / "clients" / "dense.py")
        .read_text()
        .replace("device.train()", "1 / 0")
    )
    (tmp_path / "s.toml").write_text('scenario = "quickstart"\n[arms.bad]\nclient = "bad.py"\n[arms.good]\n')
    with pytest.raises(RunError, match="1 of 2 cells failed; the first, bad"):
        fedge.study(tmp_path / "s.toml", tmp_path / "out", settings=FAST)
    assert list(json.loads((tmp_path / "out" / STUDY).read_text())["arms"]) == ["good"]


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_cell_that_was_stopped_is_taken_up(
    file: Path, result: StudyResult, tmp_path: Path, rounds: int
) -> None:
    """Breaks if a study that was stopped in the midst of a cell fails when it is run again, or repeats whole rounds."""
    out = tmp_path / "out"
    shutil.copytree(result.out, out)
    (out / STUDY).unlink()
    cell = out / "cells" / result.summary["arms"]["methods"]["cells"][0]
    (cell / "summary.json").unlink()
    (cell / "checkpoint.json").unlink()
    if rounds:
        (cell / "checkpoint.previous.json").rename(cell / "checkpoint.json")
    else:
        for name in ("checkpoint.previous.json", "reports.jsonl", "rounds.jsonl"):
            (cell / name).unlink()
    again = fedge.study(file, out, settings=FAST)
    assert (again.out / STUDY).read_bytes() == (result.out / STUDY).read_bytes()


@pytest.mark.slow
def test_killed_twenty_times_it_ends_the_same(file: Path, tmp_path: Path) -> None:
    """Breaks if a study that a cluster killed gives other figures than one that was left alone."""
    longer = [*FAST, "rounds=30"]
    result = fedge.study(file, tmp_path / "left alone", jobs=2, settings=longer)
    settings = [part for setting in longer for part in ("--set", setting)]
    command = [sys.executable, "-c", "from fedge.cli import main; main()", "study", str(file), "--quiet"]
    command += ["--jobs", "2", "--out", str(tmp_path / "out"), *settings]
    generator = random.Random(5)
    for _ in range(20):
        with subprocess.Popen(command, start_new_session=True) as process:
            with pytest.raises(
                subprocess.TimeoutExpired
            ):  # else it has ended, and nothing more can be killed
                process.wait(generator.uniform(2.0, 6.0))
            process.kill()
        time.sleep(0.2)
    subprocess.run(command, check=True)
    for name in (STUDY, TABLE):
        assert (tmp_path / "out" / name).read_bytes() == (result.out / name).read_bytes()


def test_an_export_of_the_folder_is_the_results_frame(fedge, result: StudyResult, tmp_path: Path) -> None:
    """Breaks if the table of a study needs more than its folder, or has other rows than StudyResult.frame()."""
    code, _, err = fedge("export", str(result.out), "--to", "csv", "--out", str(tmp_path / "t.csv"))
    assert (code, err) == (0, "")
    table, frame = pandas.read_csv(tmp_path / "t.csv"), result.frame()
    pandas.testing.assert_frame_equal(table, frame, check_exact=True, check_dtype=False)  # csv knows no types
    assert len(frame) == 2 * 2 * 3 and set(frame["world"]) == {7, 8} and set(frame["seed"]) == {1}
