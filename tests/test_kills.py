"""SIGKILL at random reports, of the coordinator's process or of a host: after `--resume` the reports are the same.

pytest tests/test_kills.py                 two kills, of the inline engine's one process, in its second or third round
pytest tests/test_kills.py -m slow         fifty kills under Ray, from the start on: coordinator or host, by seed; and
                                           ten of a run whose data come as a stream, each at a moment within a round
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

import fedge
from fedge.results.run_folder import read_reports
from fedge.seeding import derive_seed

DRIVER = """
import sys, fedge
from fedge.console.observer import Observer

class Watch(Observer):
    def host_event(self, event):
        if event.kind == "host_started":
            print("host", event.pid, flush=True)

    def report_arrived(self, row):
        print("report", flush=True)

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
STREAM = [
    "data.stream.rate_per_h=60",
    "data.stream.memory=30",
    "data.stream.order='parked'",
    "data.stream.keep='scenes'",
    "data.stream.labelled=0.8",
    "data.stream.label_delay_h=0.4",
    "data.stream.drift=[{what='labels', kind='gradual', at_h=1.0, width_h=1.0, staggered_h=1.0}]",
    "availability.dropout=0.2",
]
"""A memory that fills, labels still to come, devices that missed a round: all that a stream has to remember."""
SHARES = [f"fleet.{index}.ray.num_cpus=0.5" for index in range(3)]
REPORTS, PER_ROUND = 15, 5
LIMIT_S = 600


def changes(engine: str, more: list[str]) -> list[str]:
    return [f"engine.kind={engine}", "engine.hosts=1", *SMALL, *SHARES, *more]


@dataclass
class Run:
    """One process of a run; `events` holds a line per host that has started and per report that has arrived."""

    process: subprocess.Popen
    events: Path

    @classmethod
    def start(cls, engine: str, out: Path, more: list[str], *, resume: bool = False) -> "Run":
        what = ["|".join(changes(engine, more)), str(out), "resume" if resume else "start"]
        events = out.with_suffix(".events")
        with open(events, "w") as lines:
            process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, *what], stdout=lines, stderr=subprocess.PIPE, text=True
            )
        return cls(process, events)

    def wait_for(self, event: str, count: int) -> list[str]:
        """The events so far, once `event` has come `count` times or the process has ended."""
        while True:
            ended, lines = self.process.poll() is not None, self.events.read_text().splitlines()
            if ended or sum(line.startswith(event) for line in lines) >= count:
                return lines
            time.sleep(0.005)

    def kill_coordinator(self, after_reports: int, later_s: float) -> bool:
        """Whether it was still there to be killed, so long after that report."""
        self.wait_for("report", after_reports)
        time.sleep(later_s)
        alive = self.process.poll() is None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=LIMIT_S)  # closes its pipe as well
        return alive

    def kill_host(self, after_reports: int, later_s: float) -> bool:
        """Kill the host that started last. Whether it was still there."""
        self.wait_for("host", 1)
        lines = self.wait_for("report", after_reports)
        time.sleep(later_s)
        try:
            os.kill(int([line for line in lines if line.startswith("host")][-1].split()[1]), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def end(self) -> None:
        _, errors = self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == 0, errors[-2000:]


def run_whole(engine: str, out: Path, more: list[str], *, resume: bool = False) -> None:
    """To the end, undisturbed."""
    if engine == "inline":
        fedge.run(fedge.load_scenario("quickstart", changes(engine, more)), out, resume=resume)
    else:
        Run.start(engine, out, more, resume=resume).end()


def kill_again_and_again(
    engine: str,
    folder: Path,
    kills: int,
    from_report: int,
    *,
    more: list[str] | None = None,
    within_s: float = 0,
) -> None:
    """Every killed run ends, after a resume where its coordinator was killed, with the undisturbed run's reports.

    more: changes of the scenario. within_s: a kill comes up to so long after the report that it waits for.
    """
    more = more or []
    run_whole(engine, folder / "whole", more)
    expected = read_reports(folder / "whole", timing=False)
    assert len(expected) == REPORTS
    struck, trial = 0, 0
    while struck < kills:
        out = folder / str(trial)
        draw = random.Random(derive_seed(7, trial, "kill"))
        struck += kill_once(engine, out, draw, from_report, more, within_s)
        assert read_reports(out, timing=False) == expected, f"trial {trial}"
        trial += 1
    print(f"{struck} kills in {trial} trials")


def kill_once(
    engine: str, out: Path, draw: random.Random, from_report: int, more: list[str], within_s: float
) -> bool:
    """Whether the kill struck a living process; in any case the run is at its end."""
    run = Run.start(engine, out, more)
    whom = run.kill_host if engine == "ray" and draw.random() < 0.5 else run.kill_coordinator
    struck = whom(draw.randrange(from_report, REPORTS), draw.uniform(0, within_s))
    if whom == run.kill_host:
        run.end()
    elif struck:
        run_whole(engine, out, more, resume=(out / "scenario.toml").exists())
    return struck


@pytest.mark.long
def test_inline_killed_at_two_moments_ends_like_undisturbed(tmp_path) -> None:
    """Breaks if a kill at any moment loses, repeats or changes a report."""
    kill_again_and_again("inline", tmp_path, kills=2, from_report=PER_ROUND + 1)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ray_killed_at_fifty_moments_ends_like_undisturbed(tmp_path) -> None:
    """The same, fifty times, with hosts and the coordinator killed under Ray."""
    kill_again_and_again("ray", tmp_path, kills=int(os.environ.get("FEDGE_KILLS", "50")), from_report=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_stream_killed_at_ten_moments_ends_like_undisturbed(tmp_path) -> None:
    """Breaks if frames, what is stored of them, or labels that are still to come change with the process that dies."""
    kills = int(os.environ.get("FEDGE_KILLS", "10"))
    kill_again_and_again("inline", tmp_path, kills=kills, from_report=1, more=STREAM, within_s=0.5)
