"""The examples of the guide: what their READMEs say to type is typed, on both engines."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedge.protocol import TIMING_FIELDS
from tests.docs.snippets import ROOT, read

LARGE = {"torchvision_head", "own_method", "sensor_regression", "multi_label"}  # a minute and more
EXAMPLES = sorted(page.parent for page in (ROOT / "docs" / "guide" / "examples").glob("*/README.md"))


def lines(example: Path) -> list[list[str]]:
    """The README's commands, word by word; the last one runs the scenario."""
    (block,) = (block for block in read(example / "README.md") if block.language == "bash")
    return [line.split() for line in block.text.splitlines()]


def type_in(folder: Path, *words: str) -> None:
    program = {
        "python": [sys.executable],
        "fedge": [sys.executable, "-c", "from fedge.cli import main; main()"],
    }[words[0]]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*program, *words[1:]],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def runs(example: Path, tmp_path: Path, engines: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """The reports of what the README says to type, by engine; timings left out."""
    folder = shutil.copytree(example, tmp_path / example.name)
    *before, run = lines(example)
    for line in before:
        type_in(folder, *line)
    rows = {}
    for engine in ("inline", "ray"):
        type_in(folder, *run[:3], "--engine", engine, "--out", engine)
        text = (folder / engine / "reports.jsonl").read_text()
        rows[engine] = [
            {key: value for key, value in json.loads(line).items() if key not in TIMING_FIELDS}
            for line in text.splitlines()
        ]
        assert {row["status"] for row in rows[engine]} == {"ok"}
    return rows


@pytest.mark.example
@pytest.mark.parametrize(
    "example",
    [pytest.param(each, marks=[pytest.mark.slow] if each.name in LARGE else []) for each in EXAMPLES],
    ids=lambda example: example.name,
)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    """Breaks if a reader who types an example's lines gets an error or a failed device."""
    assert runs(example, tmp_path, ("inline",))["inline"]


@pytest.mark.slow
@pytest.mark.example
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_runs_alike_on_both_engines(example: Path, tmp_path: Path) -> None:
    """Breaks if the numbers of what a user brings depend on Ray."""
    rows = runs(example, tmp_path, ("inline", "ray"))
    assert rows["inline"] == rows["ray"]
