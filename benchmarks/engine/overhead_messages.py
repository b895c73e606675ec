"""What it costs to carry messages, in fedge's grids and in Flower's own simulation. See `overhead`.

Each function is called in a fresh process and returns a row: `start_s` from the first import to the first
reply, `ms_per_message` per later round (after the first 1,000 messages), and memory.
"""

import time
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).with_name("overhead_client.py")
PLAN = {"json": "x" * 800}  # as long as a plan of fedge's


def fedge_ray(clients: int, rounds: int) -> dict[str, Any]:
    """Two hosts of one CPU."""
    began_s = time.perf_counter()
    from fedge.engine.cluster import RayCluster
    from fedge.engine.ray import RayGrid
    from fedge.engine.roster import ClientProgram, HostRequest, Member

    roster = [Member(client, "a") for client in range(clients)]
    program = ClientProgram("overhead_client", CLIENT.read_text())
    with (
        RayCluster() as cluster,
        RayGrid(program, roster, {"a": HostRequest(1)}, {}, cluster=cluster, hosts_per_class=2) as grid,
    ):
        return _measure(grid, rounds, began_s)


def fedge_inline(clients: int, rounds: int) -> dict[str, Any]:
    """No host at all."""
    began_s = time.perf_counter()
    from fedge.engine.inline import InlineGrid
    from fedge.engine.roster import ClientProgram, Member

    roster = [Member(client, "a") for client in range(clients)]
    with InlineGrid(ClientProgram("overhead_client", CLIENT.read_text()), roster, {}) as grid:
        return _measure(grid, rounds, began_s)


def flower_simulation(clients: int, rounds: int) -> dict[str, Any]:
    """Flower's `run_simulation` with one CPU per client, on a Ray of its own."""
    began_s = time.perf_counter()
    import logging

    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    import fedge.engine  # for the quiet environment only  # noqa: F401
    from benchmarks.engine.overhead_client import app as client_app

    logging.getLogger("flwr").setLevel(logging.ERROR)
    server_app, rows = ServerApp(), []

    @server_app.main()
    def main(grid: Any, context: Any) -> None:
        while len(list(grid.get_node_ids())) < clients:
            time.sleep(0.1)
        rows.append(_measure(grid, rounds, began_s))

    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"address": "local", "include_dashboard": False, "log_to_driver": False},
    }
    run_simulation(server_app, client_app, clients, backend_config=backend)
    return rows[0]


def _measure(grid: Any, rounds: int, began_s: float) -> dict[str, Any]:
    """Send one message and wait (the start), then `rounds` rounds to everybody; the first 1,000 only warm up."""
    from benchmarks.measure.process import peak_rss_mb, tree_pss_mb

    nodes = list(grid.get_node_ids())
    _exchange(grid, nodes[:1])
    start_s = time.perf_counter() - began_s
    _exchange(grid, (nodes * (1000 // len(nodes) + 1))[:1000])
    per_message_ms = []
    for _ in range(rounds):
        round_began_s = time.perf_counter()
        _exchange(grid, nodes)
        per_message_ms.append((time.perf_counter() - round_began_s) / len(nodes) * 1e3)
    return {
        "start_s": start_s,
        "ms_per_message": per_message_ms,
        "coordinator_rss_mb": peak_rss_mb(),
        "all_processes_pss_mb": tree_pss_mb(),
    }


def _exchange(grid: Any, nodes: list[int]) -> None:
    from flwr.app import ConfigRecord, Message, RecordDict

    messages = [Message(RecordDict({"plan": ConfigRecord(dict(PLAN))}), node, "train") for node in nodes]
    replies = list(grid.send_and_receive(messages, timeout=300))
    if len(replies) != len(nodes) or any(reply.has_error() for reply in replies):
        raise RuntimeError(f"{len(replies)} of {len(nodes)} replies, or errors among them")
