"""`privacy.isolation = "client"` in whole runs: the same numbers, no way around the gate, limits and kills as ever."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import fedge
from fedge.engine.isolation import confine, landlock
from fedge.errors import UserError
from fedge.prepare import prepare
from fedge.scenario.schema import Scenario

needs_landlock = pytest.mark.skipif(confine.refusal() is not None, reason=f"isolation: {confine.refusal()}")

PROGRAM = """
import os, sys, time
from pathlib import Path
from flwr.clientapp import ClientApp
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate

app = ClientApp(mods=[egress_gate])

@app.train()
@on_device
def improve(device, plan):
    mine = device.client == 1
    {body}
    device.train()
    return device.report()
"""


def program(folder: Path, body: str) -> str:
    path = folder / "mine.py"
    path.write_text(PROGRAM.format(body=body))
    return f"client={path}"


@needs_landlock
@pytest.mark.long
@pytest.mark.parametrize("engine", [pytest.param("inline", marks=pytest.mark.slow), "ray"])
def test_a_run_gives_the_same_numbers(request, small, finished, tmp_path: Path, engine: str) -> None:
    """Breaks if isolation changes a result, or is not on record."""
    if engine == "ray":
        request.getfixturevalue("cluster")
    result = fedge.run(small("privacy.isolation=client", f"engine.kind={engine}"), tmp_path / "out")
    assert result.reports(timing=False) == finished().reports(timing=False)
    assert result.summary["privacy"]["isolation"] == "client"
    assert json.loads((result.out / "environment.json").read_text())["isolation"] == "client"
    assert json.loads((finished().out / "environment.json").read_text())["isolation"] == "none"


OTHERS = """
    others = [Path(device.location.data_folder) / "../0/shards/x.npy", Path(device.location.device_folder) / "../0",
              Path(device.location.data_folder) / "../../shards/x.npy", Path({out!r}) / "reports.jsonl"]
    seen = 0
    for path in others:
        try:
            os.listdir(path) if path.name == "0" else path.read_bytes()
            seen += 1
        except (PermissionError, FileNotFoundError):  # the latter without isolation, where data lie elsewhere
            pass
    if mine:
        print("seen", seen, "own", len(device.shard))
"""


@needs_landlock
@pytest.mark.long
@pytest.mark.parametrize(("isolation", "seen"), [("client", 0), ("none", 2)])
def test_others_rows_and_folders_are_out_of_reach(small, tmp_path: Path, isolation: str, seen: int) -> None:
    """Breaks if a client program reads another client's rows, or its state, or the run's results."""
    body = OTHERS.format(out=str(tmp_path / "out")).strip()
    changes = (program(tmp_path, body), f"privacy.isolation={isolation}")
    result = fedge.run(small(*changes), tmp_path / "out")
    assert {row["status"] for row in result.reports()} == {"ok"}
    assert f"seen {seen} own" in (result.out / "devices" / "1" / "output.log").read_text().splitlines()[-1]


AROUND = {
    "an array for a report": """
    if mine:
        import numpy, fedge.privacy.egress as gate
        from flwr.app import ArrayRecord, Message, RecordDict
        class Leak:
            client = 1
            def reply_to(self, message):
                return Message(RecordDict({"report": ArrayRecord([numpy.ones(193)])}), reply_to=message)
        gate._made_by_device = lambda *a: Leak()
""",
    "text for a status": """
    if mine:
        import fedge.privacy.egress as gate
        from flwr.app import Error, Message
        gate.failure_reply = lambda status, message: Message(Error(100, "label 193"), reply_to=message)
        raise ValueError("x")
""",
    "bytes into the pipe": """
    if mine:
        for number in range(3, 64):
            try:
                os.write(number, b"!" + b"label 193" * 1000)
            except OSError:
                pass
        os._exit(0)
""",
}


@needs_landlock
@pytest.mark.long
@pytest.mark.parametrize("how", AROUND)
def test_a_program_that_changes_the_gate_in_its_process_gets_nothing_out(
    small, tmp_path: Path, how: str
) -> None:
    """Breaks if a client program that rewrites fedge in its own process gets anything but a report or a word out."""
    changes = (program(tmp_path, AROUND[how].strip()), "privacy.isolation=client")
    result = fedge.run(small(*changes), tmp_path / "out")
    ended = {row["client"]: row["status"] for row in result.reports()}
    assert ended[1] != "ok" and {ended[client] for client in ended if client != 1} == {"ok"}
    everything = b"".join(path.read_bytes() for path in result.out.glob("*") if path.is_file())
    assert b"label 193" not in everything.replace(Path(tmp_path / "mine.py").read_bytes(), b"")
    lines = [json.loads(line) for line in (result.out / "egress.jsonl").read_text().splitlines()]
    fields = {field for line in lines for field in line.get("fields", ())}
    assert fields and all(field == "error" or field.startswith("report.") for field in fields)


@needs_landlock
@pytest.mark.long
def test_a_hard_limit_holds_in_an_isolated_process(small, tmp_path: Path) -> None:
    """Breaks if isolation takes the memory limit off, or its limit falls on the next client."""
    hungry = "import torch\n    if mine:\n        hoard = [torch.ones(10**7) for _ in range(400)]"
    changes = (program(tmp_path, hungry), "privacy.isolation=client", "limits.hard=true")
    ended = {row["client"]: row["status"] for row in fedge.run(small(*changes), tmp_path / "out").reports()}
    assert ended.pop(1) == "out_of_memory" and set(ended.values()) == {"ok"}


ENDS = {
    "deadline_exceeded": ("time.sleep(600)", ("engine.deadline_s=25",)),
    "host_died": ("os._exit(3)", ("engine.retries=0",)),
}


@needs_landlock
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("status", ["deadline_exceeded", "host_died"])
def test_a_hanging_and_a_dying_process_end_as_they_do_without(
    cluster, small, tmp_path: Path, status: str
) -> None:
    """Breaks if an isolated client that hangs or dies holds its host up, or lives on after it."""
    body, changes = ENDS[status]
    mark = f"fedge-mark-{os.getpid()}"
    body = f"if mine and plan.round == 1:\n        (Path.cwd() / {mark!r}).touch()\n        {body}"
    scenario = small(program(tmp_path, body), "privacy.isolation=client", "engine.kind=ray", *changes)
    ended = {
        (row["round"], row["client"]): row["status"]
        for row in fedge.run(scenario, tmp_path / "out").reports()
    }
    assert ended.pop((1, 1)) == status and set(ended.values()) == {"ok"}
    assert not _left(f"{tmp_path / 'out'}/devices/1")


def _left(folder: str) -> list[str]:
    """Processes that work in `folder`, a little later."""
    for _ in range(50):
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "cwd") == folder:
                    found.append(process.name)
            except OSError:
                continue
        if not found:
            return []
        time.sleep(0.1)
    return found


@needs_landlock
def test_a_zygote_ends_with_its_host(tmp_path: Path) -> None:
    """Breaks if a killed run leaves processes behind."""
    code = (
        "import os, sys, time\nfrom fedge.engine.isolation.process import IsolatedProgram\n"
        "from fedge.engine.isolation.room import Isolation\nfrom fedge.engine.roster import ClientProgram\n"
        "hook = Isolation('fedge.privacy.isolation:room', 'fedge.privacy.isolation:checked')\n"
        "source = 'from flwr.clientapp import ClientApp\\napp = ClientApp()'\n"
        "held = IsolatedProgram(ClientProgram('p', source), {}, 1, hook)\n"
        "print(held._process.pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    host = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    zygote = Path("/proc", host.stdout.split()[0])
    for _ in range(100):
        if not zygote.exists() or "Z" in (zygote / "stat").read_text().split()[2]:
            return
        time.sleep(0.05)
    raise AssertionError(f"the zygote {zygote.name} is still there: {host.stderr}")


def test_a_machine_that_cannot_isolate_says_so(
    small: Callable[..., Scenario], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a run that asks for isolation goes on without it, or ends in a traceback."""
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    with pytest.raises(
        UserError, match=r"isolation is 'client' and cannot be had here: .*Landlock 3.*set .*'none'"
    ):
        fedge.run(small("privacy.isolation=client"), tmp_path / "out")
    monkeypatch.setattr(landlock, "abi", lambda: 1)
    assert "has version 1 of it" in str(confine.refusal())


def test_isolation_and_a_gpu_are_refused(small: Callable[..., Scenario]) -> None:
    """Breaks if a run on a GPU is said to be isolated."""
    with pytest.raises(UserError, match=r"isolation is 'client' and engine.device 'cuda'"):
        small("privacy.isolation=client", "engine.device=cuda", "fleet.0.ray.num_gpus=0.5")


def test_each_clients_rows_lie_apart(small: Callable[..., Scenario]) -> None:
    """Breaks if a client's folder of data holds rows of another's, or if it is made anew in each run."""
    from fedge.data.shard import Shard

    folder = Path(prepare(small("privacy.isolation=client")).folder)
    for client in range(6):
        own, shared = (
            Shard.open(folder / "own" / str(client) / "shards", 0),
            Shard.open(folder / "shards", client),
        )
        for split in ("train", "validation", "test"):
            for mine, theirs in zip(own.arrays(split), shared.arrays(split), strict=True):
                assert (mine == theirs).all()
        assert (folder / "own" / str(client) / "factory.safetensors").is_file()
    made = (folder / "own" / "0" / "shards" / "x.npy").stat().st_mtime_ns
    prepare(small("privacy.isolation=client"))
    assert (folder / "own" / "0" / "shards" / "x.npy").stat().st_mtime_ns == made
    (folder / "own" / "0" / "shards" / "x.npy").write_bytes(b"damaged")
    prepare(small("privacy.isolation=client"))
    assert len(Shard.open(folder / "own" / "0" / "shards", 0).arrays("train")[0])


def test_flowers_own_runtime_is_told_that_it_does_not_isolate(small: Callable[..., Scenario]) -> None:
    """Breaks if `flwr run` goes on without the isolation that its scenario asks for."""
    from fedge.coordinator.exchange import find_clients

    with pytest.raises(UserError, match=r"fedge's own engines can do .*set privacy.isolation to 'none'"):
        find_clients(object(), small("privacy.isolation=client"))
