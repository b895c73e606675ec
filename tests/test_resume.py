"""Going on with a run: what must be the same, what may have changed, and what a device may have lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fedge
from fedge.catalog.files import client_path
from fedge.errors import RunError, UserError
from fedge.results.owner import owned

Make = Callable[..., Any]
LIGHT = ("training.instance_filter.kind=none", "training.error_maps.keep=1.0", "training.pruning.level=0")


@pytest.fixture
def begun(small: Make, finished: Make, tmp_path: Path) -> Path:
    """A folder whose run of three rounds was killed after its second."""
    out = tmp_path / "cut"
    shutil.copytree(finished(*LIGHT, "rounds=3").out, out)
    (out / "checkpoint.json").write_text((out / "checkpoint.previous.json").read_text())
    (out / "summary.json").unlink()
    for state in out.glob("devices/*/round-000003.safetensors"):
        state.unlink()
    return out


def remove(device: Path) -> None:
    shutil.rmtree(device)


def empty(device: Path) -> None:
    for path in device.glob("round-*"):
        path.unlink()


def cut_short(device: Path) -> None:
    path = device / "round-000002.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def cut_all(device: Path) -> None:
    for path in device.glob("round-*"):
        path.write_bytes(path.read_bytes()[:64])


def older(device: Path) -> None:
    (device / "round-000002.safetensors").unlink()


LOSSES = [remove, empty, cut_short, cut_all, older]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
def test_a_device_that_lost_its_state_is_named_and_the_run_stops(
    small: Make, begun: Path, lose: Callable[[Path], None]
) -> None:
    """Breaks if a device begins again from the factory model, or from an older state, without a word."""
    before = (begun / "checkpoint.json").read_text()
    lose(begun / "devices" / "4")
    with pytest.raises(
        RunError, match=r"client 4 has lost its state \(it must hold that of round 2\): devices/4, "
    ) as caught:
        fedge.run(small(*LIGHT, "rounds=3"), begun, resume=True)
    assert "\n" not in str(caught.value)
    assert (begun / "checkpoint.json").read_text() == before


def test_put_back_it_ends_like_undisturbed(small: Make, finished: Make, begun: Path, tmp_path: Path) -> None:
    """Breaks if a run that stopped for a lost device cannot go on once the device is back."""
    kept = tmp_path / "kept"
    shutil.move(begun / "devices" / "1", kept)
    with pytest.raises(RunError, match="client 1 has lost its state"):
        fedge.run(small(*LIGHT, "rounds=3"), begun, resume=True)
    shutil.rmtree(begun / "devices" / "1", ignore_errors=True)
    shutil.move(kept, begun / "devices" / "1")
    resumed = fedge.run(small(*LIGHT, "rounds=3"), begun, resume=True)
    assert resumed.reports(timing=False) == finished(*LIGHT, "rounds=3").reports(timing=False)


def test_a_device_that_was_never_heard_of_may_have_no_state(small: Make, tmp_path: Path) -> None:
    """Breaks if a client whose first rounds failed is taken for one that lost something."""
    never = [f"faults.out_of_memory.at=[{', '.join(f'[{round}, 2]' for round in (1, 2))}]", "rounds=3"]
    result = fedge.run(small(*LIGHT, *never), tmp_path)
    assert [row["status"] for row in result.reports() if row["client"] == 2] == ["out_of_memory"] * 2 + ["ok"]


def test_a_finished_run_grows(small: Make, finished: Make, tmp_path: Path) -> None:
    """Breaks if more rounds of a run are not those that a longer run would have had."""
    out = tmp_path / "out"
    shutil.copytree(finished(*LIGHT).out, out)
    with pytest.raises(UserError, match=r"differs in rounds\): take --resume to go on to round 3"):
        fedge.run(small(*LIGHT, "rounds=3"), out)
    grown = fedge.run(small(*LIGHT, "rounds=3"), out, resume=True)
    whole = finished(*LIGHT, "rounds=3")
    assert grown.reports(timing=False) == whole.reports(timing=False)
    timing = ("wall_s",)
    assert {k: v for k, v in grown.summary.items() if k not in timing} == {
        k: v for k, v in whole.summary.items() if k not in timing
    }
    assert "rounds = 3" in (out / "scenario.toml").read_text()
    with pytest.raises(UserError, match=r"round 3 of 3\); rounds is 2, and --resume undoes none: at least 3"):
        fedge.run(small(*LIGHT), out, resume=True)


def test_a_growing_run_that_is_cut_is_not_at_its_end(small: Make, finished: Make, tmp_path: Path) -> None:
    """Breaks if the shorter run's summary passes for that of the longer one, which would be lost unasked."""
    out = tmp_path / "out"
    shutil.copytree(finished(*LIGHT).out, out)
    shutil.rmtree(out / "devices" / "0")
    with pytest.raises(RunError, match="client 0 has lost its state"):
        fedge.run(small(*LIGHT, "rounds=4"), out, resume=True)
    assert not (out / "summary.json").exists()
    with pytest.raises(UserError, match="not at its end"):
        fedge.run(small(*LIGHT, "rounds=4"), out)


def test_a_changed_program_is_refused_and_the_kept_one_goes_on(
    small: Make, finished: Make, tmp_path: Path
) -> None:
    """Breaks if one half of a run is of one program and the other of another, through a helper module too."""
    program, helper = tmp_path / "mine.py", tmp_path / "shared_step.py"
    edge = client_path("edge").read_text()
    program.write_text(edge.replace("    if plan.prune", "    import shared_step\n    if plan.prune"))
    helper.write_text("rate = 1\n")
    changes = (*LIGHT, f"client={program}")
    out = tmp_path / "out"
    fedge.run(small(*changes), out)
    kept = sorted(path.name for path in (out / "programs").iterdir())
    assert kept == ["client.py", "shared_step.py"]
    helper.write_text("rate = 2\n")
    with pytest.raises(UserError) as caught:
        fedge.run(small(*changes, "rounds=3"), out, resume=True)
    copy = out / "programs" / "client.py"
    assert str(caught.value).startswith(
        f"shared_step.py has changed since round 2: resume with --set client={copy}"
    )
    resumed = fedge.run(small(*LIGHT, "rounds=3", f"client={copy}"), out, resume=True)
    assert resumed.reports(timing=False) == finished(*LIGHT, "rounds=3").reports(timing=False)


def test_the_record_says_where_it_ran(finished: Make) -> None:
    """Breaks if the run folder does not say which versions, on which processor, made its numbers."""
    facts = json.loads((finished(*LIGHT).out / "environment.json").read_text())
    built = __import__(
        "torch"
    ).__version__  # with its build, as 2.14.1+cu130, which a package's version may leave out
    assert facts["torch"] == facts["hosts"][0]["torch"] and built.startswith(facts["torch"])
    assert facts["kernels"] == "torch"
    assert {"fedge", "python", "flwr", "ray", "processor", "platform"} <= set(facts)
    assert facts["hosts"][0]["vector_instructions"]


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_in_use_is_left_alone(
    small: Make, finished: Make, tmp_path: Path, how: dict[str, bool]
) -> None:
    """Breaks if a second run writes into, cuts back or drops what a running one is writing."""
    out = tmp_path / "out"
    shutil.copytree(finished(*LIGHT).out, out)
    with owned(out):
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        with pytest.raises(UserError, match="in use by another run"):
            fedge.run(small(*LIGHT), out, **how)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_the_default_folder_has_an_owner_too(
    small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if two runs without --out meet in runs/<name>."""
    monkeypatch.chdir(tmp_path)
    with owned(tmp_path / "runs" / "quickstart"), pytest.raises(UserError, match="in use by another run"):
        fedge.run(small(*LIGHT))
    assert not (tmp_path / "runs").exists()


def test_an_inline_run_leaves_the_callers_threads(
    small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a notebook computes with one thread ever after it ran a scenario inline."""
    import os

    import torch

    torch.set_num_threads(2)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    monkeypatch.delenv("NUMEXPR_NUM_THREADS", raising=False)
    try:
        fedge.run(small(*LIGHT, "rounds=2", "engine.threads=1"), tmp_path)
        assert torch.get_num_threads() == 2
        assert os.environ["MKL_NUM_THREADS"] == "2"
        assert "NUMEXPR_NUM_THREADS" not in os.environ
    finally:
        torch.set_num_threads(1)
