"""Whole runs: engines agree, the coordinator stays apart from data, and faults cost what they may and no more."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fedge
from fedge.console.observer import Observer
from fedge.engine.cluster import RayCluster
from fedge.engine.pool import HostEvent
from fedge.errors import UserError
from fedge.results.run_folder import RunFolder
from fedge.scenario.file import scenario_toml

GATED = """
from flwr.app import *
from flwr.clientapp import ClientApp
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate
from fedge.protocol import RoundPlan, RoundReport
app = ClientApp(mods=[egress_gate])
"""


@pytest.mark.long
def test_inline_and_ray_with_one_and_two_hosts_agree(cluster: RayCluster, small, tmp_path) -> None:
    """Breaks if a number depends on the engine, on how many hosts there are, or on who came first."""
    fleet = "fleet=[{device='jetson-nano', count=3}, {device='raspberry-pi-4', count=3}]"
    inline = fedge.run(small(shape=(fleet,)), tmp_path / "inline")
    assert [row["status"] for row in inline.reports()] == ["ok"] * 12
    for hosts in (1, 2):
        shares = [f"fleet.{index}.ray.num_cpus=0.5" for index in range(2)]
        changes = [fleet, "engine.kind=ray", f"engine.hosts={hosts}", *shares]
        ray = fedge.run(small(shape=changes), tmp_path / f"ray{hosts}")
        assert ray.reports(timing=False) == inline.reports(timing=False)
        assert ray.summary["accuracy"] == inline.summary["accuracy"]


def test_results_are_what_the_docs_say(small, tmp_path) -> None:
    """Breaks if a results file lacks a promised field or the parts do not add up."""
    result = fedge.run(small(), tmp_path)
    summary = result.summary
    assert summary["macs"]["done"] == sum(row["macs_done"] for row in result.reports())
    assert summary["macs"]["saved"] == pytest.approx(1 - summary["macs"]["done"] / summary["macs"]["dense"])
    assert summary["egress"]["messages"] == 12
    egress = [json.loads(line) for line in (tmp_path / "egress.jsonl").read_text().splitlines()]
    assert sum(row["bytes"] for row in egress) == summary["egress"]["bytes"]
    assert max(row["bytes"] for row in egress) <= 4096
    assert ["fields" in row for row in egress] == 2 * [True, *5 * [False]]  # said once a round: all are alike
    assert set(egress[0]["fields"]) == set(summary["egress"]["fields"])
    last = [row for row in result.reports() if row["round"] == 2]
    mean = sum(row["test_correct"] / row["test_count"] for row in last) / len(last)
    assert summary["accuracy"]["mean"] == pytest.approx(mean)
    assert all(row["parameters"] < 0.55 * row["parameters_dense"] for row in last)
    assert {path.name for path in (tmp_path / "devices").iterdir()} == {str(client) for client in range(6)}


@pytest.mark.long
def test_a_run_is_a_function_of_its_seed(small, finished, tmp_path) -> None:
    """Breaks if two equal runs differ, or if the seed does nothing."""
    first = finished()
    again, other = (fedge.run(small(f"seed={seed}"), tmp_path / str(seed)) for seed in (7, 8))
    assert first.reports(timing=False) == again.reports(timing=False)
    assert first.reports(timing=False) != other.reports(timing=False)


def test_resumed_after_a_cut_equals_undisturbed(small, finished, tmp_path) -> None:
    """Breaks if a resumed run repeats a client's training: its devices have done round 2 already."""
    whole, cut = finished(), tmp_path / "cut"
    shutil.copytree(whole.out, cut)
    previous = (cut / "checkpoint.previous.json").read_text()  # as if killed before round 2 was committed
    (cut / "checkpoint.json").write_text(previous)
    resumed = fedge.run(small(), cut, resume=True)
    assert resumed.reports(timing=False) == whole.reports(timing=False)
    assert resumed.summary["macs"] == whole.summary["macs"]
    seconds = [json.loads(line)["wall_s"] for line in (cut / "rounds.jsonl").read_text().splitlines()]
    assert resumed.summary["wall_s"] == pytest.approx(sum(seconds))
    assert min(seconds) > 0


def test_resuming_what_is_at_its_end_changes_nothing(small, finished, tmp_path) -> None:
    """Breaks if the figures of a finished run, its wall clock among them, are lost by asking for it again."""
    whole = finished()
    shutil.copytree(whole.out, tmp_path / "out")
    assert fedge.run(small(), tmp_path / "out", resume=True).summary == whole.summary


def test_a_scenario_may_be_given_by_name_or_path(small, tmp_path) -> None:
    """Breaks if the obvious first call, `fedge.run("...")`, ends in an AttributeError."""
    path = tmp_path / "mine.toml"
    one_client = "fleet=[{device='jetson-nano', count=1}]"
    path.write_text(scenario_toml(small(one_client, shape=())))
    results = [fedge.run(name, tmp_path / "out") for name in (path, str(path))]
    assert [result.summary["clients"] for result in results] == [1, 1]
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        fedge.run("quikstart", tmp_path / "out")


def test_resume_refuses_another_scenario(small, finished) -> None:
    """Breaks if half a run of one scenario is finished as another."""
    with pytest.raises(UserError, match="training"):
        fedge.run(small("training.learning_rate=0.5"), finished().out, resume=True)


@pytest.mark.long
def test_an_earlier_run_is_not_lost_unasked(small, finished, tmp_path) -> None:
    """Breaks if a run deletes another one's results, or one that could still be resumed, without being told to."""
    shutil.copytree(finished().out, tmp_path, dirs_exist_ok=True)
    fedge.run(small(), tmp_path)  # at its end and the same: nothing is lost
    kept = (tmp_path / "reports.jsonl").read_text()
    with pytest.raises(UserError, match=r"round 2 of 2\) of another scenario .*seed.*--overwrite"):
        fedge.run(small("seed=1"), tmp_path)
    with pytest.raises(UserError, match="give one of them"):
        fedge.run(small(), tmp_path, resume=True, overwrite=True)
    (tmp_path / "summary.json").unlink()  # as if stopped
    with pytest.raises(UserError, match=r"not at its end: take --resume, --overwrite"):
        fedge.run(small(), tmp_path)
    assert (tmp_path / "reports.jsonl").read_text() == kept
    fedge.run(small("seed=1", "rounds=3"), tmp_path, overwrite=True)
    assert len((tmp_path / "rounds.jsonl").read_text().splitlines()) == 3


def test_a_folder_without_a_whole_round_may_be_begun_anew(small, tmp_path) -> None:
    """Breaks if a run that failed before its first round must be cleared away by hand."""
    RunFolder.start(tmp_path, scenario_toml(small("seed=1")))
    assert fedge.run(small(), tmp_path).summary["seed"] == 7


LEAKS = {
    "array": "return Message(RecordDict({'report': ArrayRecord([device.shard.x[:1].astype('float32')])}), reply_to=m)",
    "bytes": "return Message(RecordDict({'report': ConfigRecord({'b': b'private-193'})}), reply_to=m)",
    "string": "return Message(RecordDict({'report': ConfigRecord({'s': 'private-193'})}), reply_to=m)",
    "long list": "return Message(RecordDict({'report': MetricRecord({'epoch_loss': [0.5] * 10000})}), reply_to=m)",
    "unknown field": "return Message(RecordDict({'report': MetricRecord({'private_193': 1.0})}), reply_to=m)",
    "nan": "return RoundReport.model_construct(round=1, client=0, train_loss=float('nan')).reply_to(m)",
    "megabyte": "return Message(RecordDict({'report': MetricRecord({'x': [0.5] * 131072})}), reply_to=m)",
    "exception": "raise ValueError('private-193')",
}


@pytest.mark.parametrize("what", LEAKS)
def test_a_leaky_client_program_is_stopped_and_the_run_goes_on(small, tmp_path, what: str) -> None:
    """Breaks if anything of the leak reaches the coordinator's files, or if the leak ends the run."""
    program = tmp_path / "leaky.py"
    body = LEAKS[what].replace(
        "device.shard.x[:1].astype('float32')", "__import__('numpy').ones((1, 4), 'float32')"
    )
    program.write_text(
        GATED
        + "honest = on_device(lambda device, plan: (device.train(), device.report())[1])\n"
        + "@app.train()\ndef improve(m, context):\n"
        + "    if context.node_config['partition-id'] != 1:\n        return honest(m, context)\n"
        + f"    {body}\n"
    )
    result = fedge.run(small("rounds=2", f"client={program}"), tmp_path / "out")
    statuses = {(row["client"], row["status"]) for row in result.reports()}
    assert all(status == "ok" for client, status in statuses if client != 1)
    assert all(status.startswith(("blocked", "client_raised")) for client, status in statuses if client == 1)
    assert result.summary["failures"] == 2
    coordinator_files = [path for path in (tmp_path / "out").iterdir() if path.is_file()]
    assert all(b"private" not in path.read_bytes() for path in coordinator_files)


class Killer(Observer):
    """Kills the first host that starts, by its process id, as soon as the first report of round 1 is in."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.killed = 0

    def host_event(self, event: HostEvent) -> None:
        if event.kind == "host_started":
            self.pids.append(event.pid)

    def report_arrived(self, row) -> None:
        if row["round"] == 1 and not self.killed:
            self.killed = self.pids[0]
            os.kill(self.killed, signal.SIGKILL)


@pytest.mark.long
@pytest.mark.parametrize("retries", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_sigkill_of_a_host_costs_at_most_its_message(cluster, small, tmp_path, retries: int) -> None:
    """Breaks if a dead host takes more than its client's message along, or is not replaced for the next round."""
    fleet = "fleet=[{device='jetson-nano', count=6}]"
    changes = ["engine.kind=ray", "engine.hosts=1", f"engine.retries={retries}", "training.epochs=3"]
    scenario = small(fleet, *changes, shape=())
    killer = Killer()
    result = fedge.run(scenario, tmp_path, observer=killer)
    assert killer.killed
    lost = [row for row in result.reports() if row["status"] != "ok"]
    assert len(lost) <= (1 if retries == 0 else 0)
    assert all(row["status"] == "host_died" and row["round"] == 1 for row in lost)
    assert sum(row["round"] == 2 and row["status"] == "ok" for row in result.reports()) == 6


ISOLATED = """
import os, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import fedge
fedge.run(fedge.load_scenario("quickstart", {changes}), {out!r})
forbidden = {{"torch", "torchvision", "sklearn", "fedge.training", "fedge.models"}} & set(sys.modules)
private = ({cache!r}, "digits", ".npy", ".safetensors")
print("FORBIDDEN", [*forbidden], [path for path in opened if any(part in path for part in private)])
print("THREADS", *os.listdir("/proc/self/task"), flush=True)
"""


@pytest.mark.long
def test_the_coordinators_process_never_imports_torch_nor_opens_data(tmp_path) -> None:
    """Breaks if the process that talks to devices could see data or weights: the privacy claim itself."""
    short = ["rounds=2", "training.epochs=1", "model.factory.epochs=1", "engine.hosts=1"]
    changes = [*short, "fleet=[{device='jetson-nano', count=3}]"]
    cache = str(tmp_path / "cache")
    script = ISOLATED.format(changes=changes, out=str(tmp_path / "out"), cache=cache)
    command = [sys.executable, "-c", script]
    trace = tmp_path / "trace"
    if shutil.which("strace"):  # sees what C code opens too; one file per thread or process
        command = ["strace", "-ff", "--seccomp-bpf", "-e", "trace=open,openat", "-o", str(trace), *command]
    environment = os.environ | {"FEDGE_CACHE": cache}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "FORBIDDEN [] []" in done.stdout
    threads = done.stdout.split("THREADS")[1].split()
    traced = [Path(f"{trace}.{thread}") for thread in threads if Path(f"{trace}.{thread}").exists()]
    for opened in (path.read_text(errors="replace") for path in traced):
        assert "/torch/" not in opened
        assert "digits" not in opened
        assert f"{cache}/prepared" not in opened
    assert traced or not shutil.which("strace")


def test_a_failure_leaves_nothing_half_written(small, tmp_path) -> None:
    """Breaks if a mistake that shows only while preparing leaves a results folder behind."""
    out = tmp_path / "out"
    with pytest.raises(UserError, match="mnist"):
        fedge.run(small("data.dataset=mnist", f"data.root={tmp_path}/nowhere"), out)
    assert not out.exists()
