"""A client program that tries to see or say more than its report, inside and outside of isolation."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedge.engine.base import FleetGrid
from fedge.engine.inline import InlineGrid
from fedge.engine.isolation.confine import refusal
from fedge.engine.isolation.room import Isolation
from fedge.engine.ray import RayGrid
from fedge.engine.roster import ClientProgram, HostRequest, Member

pytestmark = pytest.mark.skipif(refusal() is not None, reason=f"isolation: {refusal()}")

FOLDER = Path(__file__).parent
WAYS_OUT = FOLDER / "ways_out.py"
sys.path.insert(0, str(FOLDER))  # its two other files are found as a program's own are
_spec = importlib.util.spec_from_file_location("ways_out", WAYS_OUT)
assert _spec and _spec.loader
ways_out = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(ways_out)
SECRET = "sk-193-of-the-coordinator"
PROGRAM = """
import json, os
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
import ways_out

app = ClientApp()

@app.train()
def train(message, context):
    facts = json.loads(message.content["facts"]["json"]) | {"host": HOST, "own": os.getcwd()}
    failed = ways_out.allowed(facts)
    found = ways_out.tried(facts) | {"failed": len(failed)}
    if failed:
        open("failed", "w").write(chr(10).join(failed))
    return Message(RecordDict({"found": MetricRecord(found)}), reply_to=message)
"""
OF_RAY = {"call_ray", "reach_rays_control_store", "reach_rays_sockets"}
NOT_EVERYWHERE = {*OF_RAY, "read_by_a_handle", "leave_a_key", "watch_the_processor", "share_a_posix_queue"}
"""Ways that a container, or a machine without Ray, may have closed already."""


@pytest.fixture
def facts(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A coordinator's folder, two clients' folders, and sockets of all kinds that somebody listens at."""
    other, own = tmp_path / "devices" / "0", tmp_path / "devices" / "1"
    for folder in (other, own):
        folder.mkdir(parents=True)
    for name in ("state", "spare", "doomed", "long"):
        (other / name).write_bytes(b"private" * 9)
    abstract = f"fedge-test-{os.getpid()}"
    with ExitStack() as stack:
        tcp, udp = (stack.enter_context(socket.socket(socket.AF_INET, kind)) for kind in (1, 2))
        unix, hidden = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(tmp_path / "raylet"))
        hidden.bind("\0" + abstract)
        for listening in (tcp, unix, hidden):
            listening.listen(8)
        yield {
            "other": str(other),
            "own": str(own),
            "coordinator": str(tmp_path),
            "tmp": str(tmp_path),
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": str(tmp_path / "raylet"),
            "abstract": abstract,
            "secret": SECRET,
            "ray": "localhost:0",
            "ray_sockets": [],
        }


def program(hooks: str, host: str = "os.getppid()") -> ClientProgram:
    isolation = Isolation(f"{hooks}:room", f"{hooks}:checked")
    files = {path.name: path.read_text() for path in FOLDER.glob("ways*.py")}
    return ClientProgram("ways", PROGRAM.replace("HOST", host), files=files, isolation=isolation)


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that a host can import, as it imports fedge's, whenever it was started: its name."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return "tests.engine.isolation.hooks"


def ask(grid: FleetGrid, facts: dict[str, Any]) -> dict[str, Any]:
    record = RecordDict({"facts": ConfigRecord({"json": json.dumps(facts)})})
    (reply,) = grid.send_and_receive([Message(record, 1, "train")])
    assert reply.has_content(), reply.error
    return dict(reply.content["found"])


def test_the_ways_are_real(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a way out fails for another reason than isolation, so that closing it would prove nothing."""
    monkeypatch.setenv("API_KEY", SECRET)
    text = json.dumps(facts | {"host": os.getpid()})
    done = subprocess.run(
        [sys.executable, str(WAYS_OUT), text], capture_output=True, text=True, cwd="/", check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name for name, got in found.items() if not got} <= NOT_EVERYWHERE
    assert len(found) >= 40


def require_shut(found: dict[str, Any], facts: dict[str, Any]) -> None:
    failed = Path(facts["own"], "failed")
    assert found.pop("failed") == 0, failed.read_text() if failed.exists() else ""
    assert {name for name, got in found.items() if got} == set()
    assert len(found) >= 40
    other = Path(facts["other"])
    assert sorted(path.name for path in other.iterdir()) == ["doomed", "long", "spare", "state"]
    assert (other / "state").read_bytes() == (other / "long").read_bytes() == b"private" * 9


def test_none_is_open_in_this_process(
    facts: dict[str, Any], hooks: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a client reaches others' files, processes, the network or the terminal where runs are inline."""
    monkeypatch.setenv("API_KEY", SECRET)
    member = Member(0, "a", {"home": facts["own"]})
    with InlineGrid(program(hooks, str(os.getpid())), [member], {}) as grid:
        require_shut(ask(grid, facts), facts)
        require_shut(ask(grid, facts), facts)  # what a message leaves in its folder opens nothing to the next
    assert "label 193" not in "".join(capfd.readouterr())


@pytest.mark.long
def test_none_is_open_on_ray(facts: dict[str, Any], hooks: str, request: pytest.FixtureRequest) -> None:
    """Breaks if a client reaches Ray, its host, or anything else where runs are on Ray."""
    cluster = request.getfixturevalue("cluster")
    import ray

    about = {"ray": ray.get_runtime_context().gcs_address}
    node = ray._private.worker.global_worker.node
    about["ray_sockets"] = [node.raylet_socket_name, node.plasma_store_socket_name]
    for way in ("reach_rays_control_store", "reach_rays_sockets"):
        assert sys.modules["ways"].WAYS[way](about)  # from here
    member = Member(0, "a", {"home": facts["own"]})
    with RayGrid(program(hooks), [member], {"a": HostRequest(1)}, {}, cluster=cluster) as grid:
        require_shut(ask(grid, facts | about), facts)


def test_a_process_that_ends_without_a_reply_is_told(
    hooks: str, tmp_path: Path, program_of: Callable[[str], ClientProgram]
) -> None:
    """Breaks if a program that ends its process hangs an inline run, or takes the zygote along."""
    body = "if client == 0:\n    os._exit(3)\nif client == 1:\n    os.kill(os.getpid(), 9)\nreturn reply(message, x=1)"
    members = [Member(client, "a", {"home": str(tmp_path)}) for client in range(3)]
    with InlineGrid(program_of(body), members, {}) as grid:
        replies = grid.send_and_receive([Message(RecordDict(), client + 1, "train") for client in range(3)])
    assert [reply.has_error() and reply.error.reason for reply in replies] == [
        "host_died",
        "host_died",
        False,
    ]


@pytest.fixture
def program_of(hooks: str) -> Callable[[str], ClientProgram]:
    def make(body: str) -> ClientProgram:
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        return ClientProgram("ends", SHORT + lines, isolation=Isolation(f"{hooks}:room", f"{hooks}:checked"))

    return make


SHORT = """
import os
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()

def reply(message, **values):
    return Message(RecordDict({"report": MetricRecord(values)}), reply_to=message)

@app.train()
def train(message, context):
    client = context.node_id - 1
"""
