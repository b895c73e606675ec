"""The lock on a run folder: one owner at a time, gone with its owner, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedge.errors import UserError
from fedge.results.owner import LOCK, owned

HOLDER = """
import sys, time
from pathlib import Path
from fedge.results.owner import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True, cwd=folder.parent
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_owner_is_refused_by_name_until_the_first_is_killed(tmp_path: Path) -> None:
    """Breaks if two runs write one log, or if a killed run keeps its folder for ever."""
    folder = tmp_path / "out"
    holder = start_holder(folder)
    before = sorted(folder.iterdir())
    with pytest.raises(UserError, match=rf"in use by another run \(process {holder.pid} on "), owned(folder):
        pass
    assert sorted(folder.iterdir()) == before
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with owned(folder):
        assert f"process {os.getpid()} " in (folder / LOCK).read_text()


def test_an_owner_in_the_same_process_is_refused_too(tmp_path: Path) -> None:
    """Breaks if two threads of a notebook can run into one folder."""
    with owned(tmp_path), pytest.raises(UserError, match="in use"), owned(tmp_path):
        pass
    with owned(tmp_path):
        pass


def test_a_run_that_wrote_nothing_leaves_no_folder(tmp_path: Path) -> None:
    """Breaks if a mistake in preparation leaves empty folders, or a lock that bars a folder of the user's."""
    with owned(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).exists()
    assert not (tmp_path / "a").exists()
    with owned(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "scenario.toml").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["scenario.toml"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    """Breaks if a person reads "File exists" and looks for the wrong file."""
    (tmp_path / "notes").write_text("mine")
    for folder in (tmp_path / "notes", tmp_path / "notes" / "below"):
        with pytest.raises(UserError, match=r"notes is a file, so .* cannot be a folder"), owned(folder):
            pass


def test_a_lock_file_that_its_owner_removed_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a run that came between another's removal and a third's creation shares the folder with the third."""
    real, calls = os.open, []

    def removed_once(path: str, *arguments: int) -> int:
        descriptor = real(path, *arguments)
        calls.append(descriptor)
        if len(calls) == 1:
            os.unlink(path)
        return descriptor

    monkeypatch.setattr("fedge.results.owner.os.open", removed_once)
    with owned(tmp_path):
        assert len(calls) == 2
        monkeypatch.undo()
        with pytest.raises(UserError, match="in use"), owned(tmp_path):
            pass


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a scratch disk without locks cannot be used at all, or is used without a word."""

    def unknown(descriptor: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fedge.results.owner.fcntl.flock", unknown)
    told: list[str] = []
    with owned(tmp_path, told.append):
        pass
    assert len(told) == 1
    assert "knows no locks" in told[0]


def test_taking_turns_never_overlaps(tmp_path: Path) -> None:
    """Breaks if releasing and taking at the same moment lets two in: each adds a line that it alone may see."""
    script = """
import sys, time
from pathlib import Path
from fedge.errors import UserError
from fedge.results.owner import owned
folder, end_s = Path(sys.argv[1]), time.monotonic() + 1.0
while time.monotonic() < end_s:
    try:
        with owned(folder):
            inside = folder / "inside"
            inside.touch(exist_ok=False)
            inside.unlink()
    except UserError:
        pass
"""
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    began_s = time.monotonic()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert time.monotonic() - began_s > 1.0
