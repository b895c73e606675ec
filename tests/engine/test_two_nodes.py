"""A Ray cluster of two nodes on loopback: two `ray start`, ended by their process ids."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedge.engine.cluster import RayCluster
from fedge.engine.inline import InlineGrid
from fedge.engine.ray import RayGrid
from fedge.engine.roster import ClientProgram, HostRequest, Member, node_id_of

pytestmark = pytest.mark.slow

PORT = 6390
NODES = ("left", "right")
LATE = "late"  # joins the cluster while a run goes on
PROGRAM = ClientProgram(
    "where",
    """
import os, time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()

@app.train()
def train(message, context):
    time.sleep(message.content["plan"]["sleep_s"])
    node = os.environ.get("FEDGE_TEST_NODE", "inline")
    return Message(
        RecordDict({"report": ConfigRecord({"node": node, "value": context.node_id**2})}), reply_to=message
    )
""",
)


@dataclass
class TwoNodes:
    """Two nodes, each with a folder of its own, which is how their processes are told apart."""

    folders: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{PORT}"

    def start(self, name: str) -> None:
        """Start a node with 1 CPU and a custom resource of its own name."""
        folder = self.folders.setdefault(name, tempfile.mkdtemp(prefix=f"rt-{name}-", dir="/tmp"))
        index = (*NODES, LATE).index(name)
        if index == 0:
            place = [
                "--head",
                f"--port={PORT}",
                "--ray-client-server-port=23010",
                "--include-dashboard=false",
            ]
        else:
            place = [f"--address={self.address}"]
        subprocess.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", *place),
                *("--num-cpus=1", f'--resources={{"{name}": 1}}', f"--node-name={name}"),
                *("--node-ip-address=127.0.0.1", f"--temp-dir={folder}"),
                *("--object-store-memory=80000000", "--disable-usage-stats"),
                *(f"--min-worker-port={24000 + 1000 * index}", f"--max-worker-port={24999 + 1000 * index}"),
                f"--dashboard-agent-listen-port={23000 + index}",
            ],
            env=os.environ | {"FEDGE_TEST_NODE": name, "RAY_TMPDIR": folder},
            check=True,
            capture_output=True,
            timeout=60,
        )

    def end(self, name: str) -> None:
        """SIGKILL each process that names the node's folder in its environment."""
        mark = f"RAY_TMPDIR={self.folders[name]}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    nodes = TwoNodes()
    try:
        for name in NODES:
            nodes.start(name)
        yield nodes
    finally:
        for name, folder in nodes.folders.items():
            nodes.end(name)
            shutil.rmtree(folder, ignore_errors=True)


def drive(
    address: str,
    sleep_s: float,
    classes: dict[str, HostRequest],
    begun: Path | None = None,
    rounds: int = 2,
    **options: Any,
) -> list[dict[str, Any]]:
    """Connect to the cluster (in a process of its own), run eight clients `rounds` times, and return their reports.

    The file `begun` is made just before the first round.
    """
    members = [Member(client, list(classes)[client % len(classes)]) for client in range(8)]
    with (
        RayCluster(address) as cluster,
        RayGrid(PROGRAM, members, classes, {}, cluster=cluster, **options) as grid,
    ):
        answers = cluster.run_tasks("fedge.engine.roster:node_id_of", {"client": 1}, on_every_node=True)
        assert answers == [2] * len(cluster.nodes())
        plan = RecordDict({"plan": ConfigRecord({"sleep_s": sleep_s})})
        if begun is not None:
            begun.touch()
        replied = [
            grid.send_and_receive([Message(plan, node_id_of(client), "train") for client in range(8)])
            for _ in range(rounds)
        ]
        return [
            {"round": index, "client": client, **reply.content["report"]}
            for index, replies in enumerate(replied)
            for client, reply in enumerate(replies)
        ]


def elsewhere(*arguments: Any, **options: Any) -> list[dict[str, Any]]:
    """`drive` in a fresh process, since a process can be connected to one Ray at a time."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(drive, *arguments, **options).result(timeout=120)


def test_two_nodes_give_the_numbers_of_one_process(nodes):
    """If this fails, a cluster computes something else than a laptop."""
    reports = elsewhere(nodes.address, 0.05, {"a": HostRequest(1)})
    members = [Member(client, "a") for client in range(8)]
    with InlineGrid(PROGRAM, members, {}) as grid:
        plan = RecordDict({"plan": ConfigRecord({"sleep_s": 0.0})})
        replies = grid.send_and_receive([Message(plan, node_id_of(client), "train") for client in range(8)])
    expected = [reply.content["report"]["value"] for reply in replies]
    assert [report["value"] for report in reports] == expected * 2
    assert {report["node"] for report in reports} == {"left", "right"}


def test_a_custom_resource_binds_a_class_to_its_node(nodes):
    """If this fails, a class that needs a device runs where there is none."""
    classes = {name: HostRequest(0.5, resources={name: 1}) for name in NODES}
    for report in elsewhere(nodes.address, 0.0, classes):
        assert report["node"] == NODES[report["client"] % 2]


def test_sticky_clients_stay_on_their_node_across_runs(nodes):
    """If this fails, a device whose state is on a local disk is sent where its state is not."""
    runs = [elsewhere(nodes.address, 0.02, {"a": HostRequest(0.5)}, sticky=True) for _ in range(2)]
    homes = {report["client"]: report["node"] for report in runs[0]}
    assert set(homes.values()) == {"left", "right"}
    assert all(report["node"] == homes[report["client"]] for run in runs for report in run)


def whole_run(out: Path, changes: list[str]) -> list[dict[str, Any]]:
    """`fedge.run` of a small quickstart; its reports without the seconds that the simulation took."""
    from fedge.launch import run
    from fedge.scenario.load import load_scenario

    shape = [
        "rounds=2",
        "training.epochs=1",
        "model.factory.epochs=1",
        *(f"fleet.{i}.count=2" for i in range(3)),
    ]
    return run(load_scenario("quickstart", [*shape, *changes]), out).reports(timing=False)


@pytest.mark.parametrize("state", ["shared", "sticky"])
def test_a_whole_run_on_two_nodes_equals_the_inline_one(nodes, tmp_path, state):
    """If this fails, the numbers of a run depend on the machines it ran on."""
    found = []
    for engine in (["engine.kind=inline"], [f"engine.address={nodes.address}", f"engine.state={state}"]):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found.append(pool.submit(whole_run, tmp_path / engine[0], engine).result(timeout=200))
    assert found[0] == found[1]
    assert len(found[0]) == 12


def round_s(folder: Path, address: str, clients: int, ray: str) -> float:
    """Seconds of the fastest round but the first, of that many clients that train LeNet on 300 rows each."""
    import numpy as np

    import fedge

    chance = np.random.default_rng(7)
    x_NCHW = chance.integers(0, 256, (400 * clients, 1, 28, 28), dtype=np.uint8)
    fedge.write_dataset(folder / "rows", x_NCHW, chance.integers(0, 10, len(x_NCHW)))
    changes = [
        f"data={{dataset='{folder / 'rows'}/', partition={{kind='iid'}}, factory_fraction=0.01}}",
        "model={name='lenet', factory={epochs=0}}",
        f"fleet=[{{device='jetson-nano', count={clients}, ray={ray}}}]",
        f"engine={{kind='ray', address='{address}', hosts={clients // 8}}}",
        "client=dense",
        "rounds=4",
        "training.epochs=12",
        "schedule={kind='train_only'}",
        "training.pruning.level=0.0",
    ]
    out = fedge.run(fedge.load_scenario("quickstart", changes), folder / "out").out
    rounds = map(json.loads, (out / "rounds.jsonl").read_text().splitlines())
    return min(row["wall_s"] for row in list(rounds)[1:])


def test_two_nodes_do_twice_the_work_in_the_same_time(nodes, tmp_path):
    """If this fails, a second machine is not worth its price: weak scaling below 0.9. Wants two idle cores."""
    took_s = []
    for clients, ray in ((8, "{num_cpus=1, resources={left=1}}"), (16, "{num_cpus=1}")):
        folder = tmp_path / str(clients)
        folder.mkdir()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            took_s.append(pool.submit(round_s, folder, nodes.address, clients, ray).result(timeout=300))
    print(
        f"\nweak scaling, 1 -> 2 nodes: {took_s[0]:.2f} s / {took_s[1]:.2f} s = {took_s[0] / took_s[1]:.3f}"
    )
    assert took_s[0] / took_s[1] >= 0.9


@pytest.mark.parametrize("sticky", [False, True])
def test_a_node_may_join_and_leave(nodes, tmp_path, sticky):
    """If this fails, a cluster that grows while a run goes on is of no use, or one that shrinks ends the run."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        classes, begun = {"a": HostRequest(1)}, tmp_path / "begun"
        future = pool.submit(drive, nodes.address, 0.5, classes, begun, rounds=16, sticky=sticky)
        while not begun.exists() and not future.done():
            time.sleep(0.05)
        nodes.start(LATE)
        time.sleep(12)  # of some 30 s; the node has taken several
        nodes.end(LATE)
        reports = future.result(timeout=200)
    assert [report["value"] for report in reports] == [node_id_of(client) ** 2 for client in range(8)] * 16
    assert {report["node"] for report in reports} == {*NODES, *(() if sticky else (LATE,))}
    assert reports[-1]["node"] in NODES


def test_a_node_that_dies_costs_no_message(nodes, tmp_path):
    """If this fails, losing a machine of a cluster ends the run. Last in the file, since it ends the node."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        future = pool.submit(drive, nodes.address, 1.0, {"a": HostRequest(1)}, tmp_path / "begun")
        while not (tmp_path / "begun").exists() and not future.done():
            time.sleep(0.05)
        time.sleep(2)  # of the first round's four seconds at least
        nodes.end("right")
        reports = future.result(timeout=120)
    assert [report["value"] for report in reports] == [node_id_of(client) ** 2 for client in range(8)] * 2
    assert {report["node"] for report in reports if report["round"] == 1} == {"left"}
