"""The examples of labels and numbers learn what they are for, by the methods that they name."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fedge
from fedge.launch import RunResult
from fedge.scenario.load import load_scenario
from tests.docs.snippets import ROOT, read

FOLDER = ROOT / "docs" / "guide" / "examples"
FEDGE = [sys.executable, "-c", "from fedge.cli import main; main()"]


def typed(folder: Path, command: list[str]) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def made(name: str, into: Path) -> Path:
    """A copy of an example's folder, with its README's commands done up to the run."""
    folder = shutil.copytree(FOLDER / name, into / name)
    (block,) = (block for block in read(FOLDER / name / "README.md") if block.language == "bash")
    for line in block.text.splitlines()[:-1]:
        program, *arguments = line.split()
        typed(folder, [*([sys.executable] if program == "python" else FEDGE), *arguments])
    return folder


def run(folder: Path) -> RunResult:
    """Inline, and planned before."""
    planned = json.loads(typed(folder, [*FEDGE, "plan", "scenario.toml", "--json"]))
    assert all(row["fits"] and row["macs_done"] < row["macs_dense"] for row in planned)
    result = fedge.run(load_scenario(str(folder / "scenario.toml"), ["engine.kind=inline"]), folder / "run")
    last = result.reports()[-1]
    assert (last["instance_filter"], last["error_maps"]) == ("early", "error")
    assert last["parameters"] < last["parameters_dense"] and last["samples_kept"] < last["samples_seen"]
    assert result.summary["gain"]["mean"] > 0 and result.summary["gain"]["over_told"] is None
    return result


@pytest.mark.slow
@pytest.mark.example
def test_a_regression_on_sensor_windows(tmp_path: Path) -> None:
    """Breaks if numbers are not learned, or their error is not what falls."""
    result = run(made("sensor_regression", tmp_path))
    last, error = result.reports()[-1], result.summary["error"]
    assert error["mean"] < error["factory"] and result.summary["gain"]["error"]["mean"] > 0
    assert last["loss"] == "huber" and last["test_better"] + last["test_worse"] <= last["test_count"]


@pytest.mark.slow
@pytest.mark.example
def test_several_labels_per_sample(tmp_path: Path) -> None:
    """Breaks if labels are not learned: a network that always says no is right in most of them."""
    folder = made("multi_label", tmp_path)
    result = run(folder)
    last = result.reports()[-1]
    assert last["loss"] == "binary" and last["decisions"] == 10
    always_no = 1 - float(np.load(folder / "scenes" / "y.npy").mean())
    assert result.summary["accuracy"]["mean"] > always_no + 0.02
