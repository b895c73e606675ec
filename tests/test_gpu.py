"""`engine.device = "cuda"` from outside: refusals where there is no GPU, and what a run may go on on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import fedge
from fedge.cli import app
from fedge.errors import UserError
from fedge.forecast import plan_scenario
from fedge.scenario.load import load_scenario

ROOT = Path(fedge.__file__).parents[1]
SHARES = [f"fleet.{index}.ray.num_gpus=0.25" for index in range(3)]
CUDA = ["engine.device=cuda", *SHARES]
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")


@NO_GPU
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_without_a_gpu_a_run_ends_before_it_begins(engine: str, tmp_path: Path) -> None:
    """Minutes of preparation on the CPU would come first, or a traceback."""
    changes = [word for change in CUDA for word in ("--set", change)]
    ended = CliRunner().invoke(
        app, ["run", "quickstart", "--engine", engine, "--out", str(tmp_path / "out"), *changes]
    )
    error = ended.exception
    line = str(error) if isinstance(error, UserError) else ended.output
    assert isinstance(error, UserError) or ended.exit_code == 2, line
    assert ("there is no GPU" if engine == "inline" else "the best node has 0 GPU") in line
    assert not (tmp_path / "out" / "reports.jsonl").exists()


def test_a_forecast_needs_no_gpu() -> None:
    """What a run on a GPU will cost could be asked on that machine alone."""
    here, there = (plan_scenario(load_scenario("quickstart", changes)) for changes in ([], CUDA))
    assert there == here


def test_a_run_goes_on_on_the_device_it_was_begun_on(finished, small, tmp_path: Path) -> None:
    """A run's numbers would be of neither device."""
    shutil.copytree(finished().out, tmp_path / "out")
    shares = [f"fleet.{index}.ray.num_gpus=0.25" for index in range(len(small().fleet))]
    with pytest.raises(UserError, match=r"it differs in .*engine\.device"):
        fedge.run(small("engine.device=cuda", "rounds=3", *shares), tmp_path / "out", resume=True)


SHARES_OF_A_GPU = """
from functools import partial

import pytest
import ray

import fedge
from fedge.engine.cluster import RayCluster
from fedge.errors import UserError
from fedge.scenario.load import load_scenario

ray.init = partial(ray.init, num_gpus=1)  # it believes that
with RayCluster("local") as cluster:
    for share, seen in ((0.0, ""), (0.25, "0")):
        asked = cluster.run_tasks("os:getenv", {"key": "CUDA_VISIBLE_DEVICES"}, num_gpus=share)
        assert (asked[0] or "") == seen, asked
    with pytest.raises(UserError, match="2 GPU, and no Ray node has that"):
        cluster.run_tasks("os:getcwd", {}, num_gpus=2)
    with pytest.raises(UserError, match="there is no GPU"):
        shares = [f"fleet.{index}.ray.num_gpus=0.25" for index in range(3)]
        fedge.run(load_scenario("quickstart", ["engine.device=cuda", *shares]), "out")
"""


@pytest.mark.long
@NO_GPU
def test_preparation_has_its_share_of_a_gpu_under_ray(tmp_path: Path) -> None:
    """Ray would hide the GPU from the task that prepares, which would then say that there is none.

    In a process of its own: this one may hold a Ray that knows of no GPU.
    """
    done = subprocess.run(
        [sys.executable, "-c", SHARES_OF_A_GPU], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
