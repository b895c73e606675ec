"""The training path on a stand-in for a GPU, in a process of its own: torch counts its devices once (device.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES, RUNS = (Path(__file__).with_name(name) for name in ("cases.py", "runs.py"))
LIMIT_S = 400  # a minute on an idle machine


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 20)
@pytest.mark.parametrize("file", [CASES, RUNS], ids=lambda file: file.stem)
def test_nothing_is_left_on_the_cpu(file: Path) -> None:
    """A run with engine.device = "cuda" would end in torch's "all tensors to be on the same device"."""
    options = ["-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider", "-q", "--tb=short"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", str(file), *options],
        cwd=file.parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    assert " passed" in ended.stdout and "skipped" not in ended.stdout
