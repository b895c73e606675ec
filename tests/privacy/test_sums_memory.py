"""view = "sums" under Ray: what the memory of both servers' processes holds while a run goes on."""

import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedge.privacy.leaving import kept_reports

MARK = 0x5EED_F00D_1234_5678

RUN = f"""
import os, signal, sys
import numpy, fedge, fedge.launch
from fedge.scenario.load import load_scenario
mark = numpy.array([{MARK - 1}], dtype=numpy.uint64) + numpy.uint64(1)
fedge.launch.draw_page = lambda folder, notice: None
class Stops(fedge.Observer):
    def round_finished(self, figures):
        os.kill(os.getpid(), signal.SIGSTOP)
changes = ["rounds=2", "training.epochs=1", "model.factory.epochs=1", "privacy.view=sums", "privacy.min_cohort=3"]
changes += ["fleet.0.count=2", "fleet.1.count=1", "fleet.2.count=1", "engine.kind=ray"]
fedge.run(load_scenario("quickstart", changes), sys.argv[1], observer=Stops())
"""


def regions(pid: int) -> Iterator[bytes]:
    """What a process holds that it may write to."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if found is None or "/dev/shm" in line:
                continue
            start, end = (int(address, 16) for address in found.groups())
            for at in range(start, end, 2**24):
                try:
                    memory.seek(at)
                    yield memory.read(min(2**24, end - at))
                except OSError:  # never touched
                    continue


def found_in(pid: int, patterns: dict[str, bytes]) -> set[str]:
    held: set[str] = set()
    for region in regions(pid):
        held |= {name for name, pattern in patterns.items() if name not in held and pattern in region}
    return held


def helper_of(pid: int) -> int:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, stat = (path / "cmdline").read_bytes(), (path / "stat").read_text()
        except OSError:
            continue
        if b"fedge.privacy.sums.helper" in command and int(stat.rpartition(")")[2].split()[1]) == pid:
            return int(path.name)
    raise AssertionError("no helper runs beside the coordinator")


def patterns_of(out: Path) -> dict[str, bytes]:
    """Every client's own numbers, in decimal and as machine words; numbers so large that chance makes none."""
    patterns = {}
    for client in range(4):
        (row,) = kept_reports(out / "devices" / str(client))
        assert row["bit_operations"] > 2**32
        for name in ("macs_done", "bit_operations"):
            patterns[f"{name} of {client}"] = str(row[name]).encode()
        patterns[f"word of {client}"] = struct.pack("<Q", row["bit_operations"])
        patterns[f"double of {client}"] = struct.pack("<d", float(row["bit_operations"]))
    return patterns


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_servers_memory_holds_a_clients_number(tmp_path: Path) -> None:
    """Breaks if the coordinator's or the helper's process ever gets to see one client's report."""
    out = tmp_path / "out"
    coordinator = subprocess.Popen([sys.executable, "-c", RUN, str(out)], stderr=subprocess.PIPE)
    try:
        _, status = os.waitpid(coordinator.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), coordinator.stderr.read().decode() if coordinator.stderr else ""
        patterns = patterns_of(out)
        mark = {"mark": struct.pack("<Q", MARK)}
        assert found_in(coordinator.pid, patterns | mark) == {"mark"}  # the search finds what is there
        assert found_in(helper_of(coordinator.pid), patterns) == set()
        for _ in range(2):  # rounds
            os.kill(coordinator.pid, signal.SIGCONT)
            _, status = os.waitpid(coordinator.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status) or os.WEXITSTATUS(status) == 0
    finally:
        if coordinator.poll() is None:
            coordinator.kill()
        if coordinator.stderr:
            coordinator.stderr.close()
