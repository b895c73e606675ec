"""What a device prints stays in its own file, by whatever way it is printed."""

import contextlib
import ctypes
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import fedge
from fedge.console.progress import watching
from fedge.privacy.output import printing_into, shown

PRINTS = {
    "print": lambda: print("label 193"),
    "stderr": lambda: print("label 193", file=sys.stderr),
    "the stream the process began with": lambda: sys.__stdout__.write("label 193"),
    "a descriptor": lambda: os.write(2, b"label 193"),
    "a child": lambda: subprocess.run(["echo", "label 193"], check=True),
    "the C library": lambda: ctypes.CDLL(None).puts(b"label 193"),
    "another thread": lambda: [
        thread := threading.Thread(target=print, args=["label 193"]),
        thread.start(),
        thread.join(),
    ],
    "a log": lambda: logging.StreamHandler(sys.__stderr__).emit(logging.makeLogRecord({"msg": "label 193"})),
}


@pytest.mark.parametrize("how", PRINTS)
def test_whatever_prints_prints_into_the_devices_file(tmp_path, capfd, how: str) -> None:
    """Breaks if labels or pictures reach the terminal, a notebook or a log of the engine's."""
    log = tmp_path / "devices" / "3" / "output.log"
    print("before")
    with printing_into(log):
        PRINTS[how]()
    print("after")
    assert "label 193" in log.read_text() and "before" not in log.read_text()
    out, err = capfd.readouterr()
    assert (out, err) == ("before\nafter\n", "")
    assert log.stat().st_mode & 0o777 == 0o600


def test_output_is_appended_and_a_failure_puts_the_streams_back(tmp_path, capfd) -> None:
    """Breaks if a later message wipes an earlier one's output, or if a raising program silences the run for good."""
    log = tmp_path / "output.log"
    for word in ("one", "two"):
        with pytest.raises(ValueError), printing_into(log):
            print(word)
            raise ValueError
    print("seen")
    os.write(1, b"seen too")
    assert log.read_text() == "one\ntwo\n"
    assert capfd.readouterr().out == "seen\nseen too"


def test_a_silent_device_leaves_no_file(tmp_path) -> None:
    """Breaks if ten thousand silent devices leave ten thousand empty files and folders."""
    with printing_into(tmp_path / "7" / "output.log"):
        pass
    assert not (tmp_path / "7").exists()


def test_a_device_that_cannot_write_prints_nowhere(tmp_path, capfd) -> None:
    """Breaks if a full or read-only disk sends what a device prints to the coordinator's terminal."""
    (tmp_path / "file").write_text("")
    for log in (None, tmp_path / "file" / "output.log"):
        with printing_into(log):
            print("label 193")
    assert capfd.readouterr() == ("", "")


def test_the_live_bar_goes_on_while_a_device_prints(tmp_path, monkeypatch) -> None:
    """Breaks if the bar of a run in this process stops, or is drawn into a device's file."""
    terminal, ours = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with open(ours, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with watching(rounds=2) as bar:
            bar.round_started(1, 6)
            os.set_blocking(terminal, False)
            with printing_into(tmp_path / "output.log"):
                print("label 193")
                _drain(terminal)
                time.sleep(0.5)  # the bar is drawn ten times a second, by a thread of its own
                drawn = _drain(terminal)
        sys.stderr.flush()
    assert b"round 1/2" in drawn and b"label" not in drawn
    assert (tmp_path / "output.log").read_text() == "label 193\n"
    os.close(terminal)


def _drain(terminal: int) -> bytes:
    pieces = []
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(terminal, 65536):
            pieces.append(piece)
    return b"".join(pieces)


CHATTY = """
import os
from flwr.clientapp import ClientApp
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate

app = ClientApp(mods=[egress_gate])

@app.train()
@on_device
def improve(device, plan):
    print("labels of", device.client, device.shard.y.tolist())
    os.write(2, b"by descriptor\\n")
    device.train()
    return device.report()
"""


@pytest.mark.long
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_a_devices_output_stays_in_its_folder_on_both_engines(
    request, small, tmp_path, capfd, engine: str
) -> None:
    """Breaks if Ray's session logs, which outlive the run, or the person's terminal hold a device's labels."""
    if engine == "ray":
        request.getfixturevalue("cluster")
    (tmp_path / "chatty.py").write_text(CHATTY)
    result = fedge.run(small(f"client={tmp_path / 'chatty.py'}", f"engine.kind={engine}"), tmp_path / "out")
    assert {row["status"] for row in result.reports()} == {"ok"}
    for client in range(6):
        text = (result.out / "devices" / str(client) / "output.log").read_text()
        assert text.count(f"labels of {client} [") == 2 and text.count("by descriptor") == 2
    seen = "".join(capfd.readouterr())
    assert "labels of" not in seen and "by descriptor" not in seen
    if engine == "ray":
        import ray

        logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
        assert logs.is_dir()
        assert not [log for log in logs.rglob("*") if log.is_file() and b"labels of" in log.read_bytes()]


def test_what_is_shown_on_purpose_is_printed_here(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Breaks if `fedge try` shows nothing, or if what it switches on stays on for the runs after it."""
    with shown(), printing_into(tmp_path / "output.log"):
        print("label 193")
    assert capfd.readouterr().out == "label 193\n"
    assert not (tmp_path / "output.log").exists()
    with printing_into(tmp_path / "output.log"):
        print("label 194")
    assert capfd.readouterr().out == ""
    assert (tmp_path / "output.log").read_text() == "label 194\n"
