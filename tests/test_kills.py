"""SIGKILL at random moments, of the coordinator's process or of a host: after `--resume` the reports are the same.

pytest tests/test_kills.py                 two kills, of the inline engine's one process
pytest tests/test_kills.py -m slow         fifty kills under Ray: coordinator or host, by seed
"""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedge.protocol import TIMING_FIELDS
from fedge.seeding import derive_seed

DRIVER = """
import sys, fedge
from fedge.report.observer import Observer

class Watch(Observer):
    def host_event(self, event):
        if event.kind == "host_started":
            print(event.pid, flush=True)

changes, out, resume = sys.argv[1].split("|"), sys.argv[2], sys.argv[3] == "resume"
fedge.run(fedge.load_scenario("quickstart", changes), out, resume=resume, observer=Watch())
"""
SMALL = [
    "rounds=3",
    "training.epochs=1",
    "model.factory.epochs=1",
    "fleet.2.count=1",
    "fleet.0.count=2",
    "fleet.1.count=2",
]
SHARES = [f"fleet.{index}.ray.num_cpus=0.5" for index in range(3)]
LIMIT_S = 600


@dataclass
class Run:
    """One process of a run; `hosts` holds a line per host that has started: its process id."""

    process: subprocess.Popen
    hosts: Path
    started_s: float

    @classmethod
    def start(cls, engine: str, out: Path, *, resume: bool = False) -> "Run":
        changes = "|".join([f"engine.kind={engine}", "engine.hosts=1", *SMALL, *SHARES])
        command = [sys.executable, "-c", DRIVER, changes, str(out), "resume" if resume else "start"]
        hosts = out.with_suffix(".hosts")
        with open(hosts, "w") as lines:
            process = subprocess.Popen(command, stdout=lines, stderr=subprocess.PIPE, text=True)
        return cls(process, hosts, time.monotonic())

    def kill_coordinator(self, after_s: float) -> bool:
        """Whether it was still there to be killed."""
        time.sleep(after_s)
        alive = self.process.poll() is None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT_S)
        return alive

    def kill_host(self, after_s: float) -> bool:
        """Kill the host that started last, `after_s` after the first one did. Whether it was still there."""
        while self.process.poll() is None and not self.hosts.read_text():
            time.sleep(0.02)
        time.sleep(after_s)
        try:
            os.kill(int(self.hosts.read_text().split()[-1]), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def end(self) -> None:
        _, errors = self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == 0, errors[-2000:]


def reports(out: Path) -> list[str]:
    import json

    rows = [json.loads(line) for line in (out / "reports.jsonl").read_text().splitlines()]
    return [json.dumps({key: row[key] for key in row if key not in TIMING_FIELDS}) for row in rows]


def kill_again_and_again(engine: str, folder: Path, kills: int) -> None:
    """Every killed run ends, after a resume where its coordinator was killed, with the undisturbed run's reports."""
    undisturbed = Run.start(engine, folder / "whole")
    undisturbed.end()
    whole_s = time.monotonic() - undisturbed.started_s
    expected = reports(folder / "whole")
    assert len(expected) == 15
    struck, trial = 0, 0
    while struck < kills:
        out = folder / str(trial)
        struck += kill_once(engine, out, random.Random(derive_seed(7, trial, "kill")), whole_s)
        assert reports(out) == expected, f"trial {trial}"
        trial += 1
    print(f"{struck} kills in {trial} trials")


def kill_once(engine: str, out: Path, draw: random.Random, whole_s: float) -> bool:
    """Whether the kill struck a living process; in any case the run is at its end."""
    run = Run.start(engine, out)
    if engine == "ray" and draw.random() < 0.5:
        struck = run.kill_host(draw.uniform(0, whole_s / 2))
        run.end()
        return struck
    struck = run.kill_coordinator(draw.uniform(0, whole_s))
    begun = (out / "scenario.toml").exists()
    if struck:
        Run.start(engine, out, resume=begun).end()
    return struck


def test_inline_killed_at_two_moments_ends_like_undisturbed(tmp_path) -> None:
    """Breaks if a kill at any moment loses, repeats or changes a report."""
    kill_again_and_again("inline", tmp_path, kills=2)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ray_killed_at_fifty_moments_ends_like_undisturbed(tmp_path) -> None:
    """The same, fifty times, with hosts and the coordinator killed under Ray."""
    kill_again_and_again("ray", tmp_path, kills=int(os.environ.get("FEDGE_KILLS", "50")))
