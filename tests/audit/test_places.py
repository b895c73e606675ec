"""Where the audit looks: files, and the memory of processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedge.audit import places
from fedge.audit.forms import patterns
from fedge.audit.places import folder_place, memory_place, rays_side, regions
from fedge.audit.search import Matcher

HOLDS = (
    "import sys; held = bytes.fromhex(sys.stdin.readline().strip()); print('held', flush=True); "
    "sys.stdin.readline()"
)


@pytest.mark.parametrize("holds", [True, False])
def test_a_canary_in_a_processs_memory_is_found(planted, holds: bool) -> None:
    """Breaks if a coordinator that has a client's row in memory is called clean, or one that has none is not."""
    token = planted().runs[0]
    secret = token.codes.astype("u1").tobytes()
    told = secret if holds else bytes(len(secret))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        print(told.hex(), file=process.stdin, flush=True)
        assert process.stdout.readline() == "held\n"
        place = memory_place("memory", [process.pid], Matcher(patterns((token,))))
        assert list(regions(process.pid)) and place.size_bytes > 1e6 and not place.skipped
        assert bool(place.hits) is holds
        assert rays_side(process.pid) == ({}, None)
        process.stdin.close()


def test_a_process_that_cannot_be_read_is_told(planted) -> None:
    """Breaks if memory that nobody looked at counts as clean without a word."""
    matcher = Matcher(patterns(planted().runs))
    assert "no such process" in memory_place("memory", [], matcher).skipped
    assert "No such file" in memory_place("memory", [2**22 + 1], matcher).as_json()["skipped"]


def test_a_folder_is_searched_but_for_the_devices_own(planted, tmp_path: Path) -> None:
    """Breaks if a file among the results is passed over, or if a device's own folder is taken for a leak."""
    token = planted().runs[0]
    run = tmp_path / "run"
    for name in ("devices/3", "devices/4"):
        (run / name).mkdir(parents=True)
    (run / "devices" / "3" / "own.bin").write_bytes(token.stored.tobytes())
    matcher = Matcher(patterns((token,)))
    own = (run / "devices" / "3",)
    assert not folder_place("results", run, matcher, without=own).hits
    (run / "devices" / "4" / "other.bin").write_bytes(token.stored.tobytes())
    place = folder_place("results", run, matcher, without=own)
    assert [hit.canary for hit in place.hits] and place.as_json()["found"][0]["canary"] == "token"
    (run / "devices" / "4" / "other.bin").unlink()
    (run / token.codes.astype("u1").tobytes().hex()).touch()
    assert folder_place("results", run, matcher, without=own).hits  # a file's name tells it too


def test_rays_servers_are_told_from_the_workers_that_devices_run_in(monkeypatch) -> None:
    """Breaks if a server's memory is passed over, above all the object store's, or a device's is taken for one."""
    ray = b"/lib/python/site-packages/ray"
    commands = {
        2: ray + b"/core/src/ray/gcs/gcs_server\0--log_dir=/tmp/ray/session_1/logs",
        3: ray + b"/core/src/ray/raylet/raylet\0--session_dir=/tmp/ray/session_1\0--python_worker_command=python "
        + ray + b"/_private/workers/default_worker.py",
        4: b"python\0-u\0" + ray + b"/_private/log_monitor.py",
        5: b"ray::Host.answer\0", 6: b"ray::IDLE\0", 7: b"ray::DashboardAgent\0",
        8: b"python\0" + ray + b"/_private/workers/default_worker.py", 9: b"python\0-m\0zygote",
        10: b"python\0-P\0-m\0fedge.privacy.sums.helper",
    }  # fmt: skip
    monkeypatch.setattr(places, "_command", commands.__getitem__)
    monkeypatch.setattr(places, "_children", lambda: {1: [2, 3, 4, 10], 3: [5, 6, 7, 8], 5: [9]})
    servers, session = rays_side(1)
    assert session == Path("/tmp/ray/session_1")
    assert {name.removeprefix("memory of "): sorted(pids) for name, pids in servers.items()} == {
        "Ray's key-value store": [2], "Ray's raylet and object store": [3], "Ray's other processes": [4, 7],
        "the helper": [10],
    }  # fmt: skip
