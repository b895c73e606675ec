"""What a process for each message costs (`privacy.isolation = "client"`).

Messages to a client that does nothing, one after another, with and without, in turns. A host holds what hosts hold:
torch, fedge's devices, and what training loads. Milliseconds a message are of the clock: a fork, the fences, the client
program loaded, its answer checked outside.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.process import in_fresh_process
from benchmarks.measure.results import Results, Row
from benchmarks.measure.table import per_machine

CLIENT = Path(__file__).with_name("overhead_client.py")
WAYS = {"none": "a process for all", "client": "a process for each message"}


def room(node_config: Any, run_config: Any) -> Any:
    """One folder, to read and write."""
    from fedge.engine.isolation.room import Room

    home = str(run_config["home"])
    return Room((), (home,), home, node_config)


def checked(message: Any, payload: Any, run_config: Any, node_config: Any) -> Any:
    """Anything may go on: the client says one number."""
    return payload


def run(options: Options, results: Results) -> None:
    """Both ways, in turns, each in a fresh process."""
    load = os.getloadavg()[0]
    for way in WAYS:
        results.add(
            {"isolation": way, **in_fresh_process(measure, way, options.messages), "load": round(load, 1)}
        )


def measure(way: str, messages: int) -> Row:
    """One row: of `messages` messages, after ten more."""
    from fedge.device.warm import warm
    from fedge.engine.inline import InlineGrid
    from fedge.engine.isolation.room import Isolation
    from fedge.engine.roster import ClientProgram, Member
    from fedge.privacy.isolation import isolation_of
    from fedge.scenario.load import load_scenario

    real = isolation_of(load_scenario("quickstart", ["privacy.isolation=client"]))
    assert real is not None
    warm({})
    hooks = Isolation(f"{__name__}:room", f"{__name__}:checked", real.preload, real.warm)
    program = ClientProgram("nothing", CLIENT.read_text(), isolation=hooks if way == "client" else None)
    with tempfile.TemporaryDirectory() as home, InlineGrid(program, [Member(0, "a")], {"home": home}) as grid:
        ask = _asker(grid)
        times_ms = [ask() for _ in range(messages + 10)][10:]
        return {
            "messages": messages,
            "ms_per_message": round(median(times_ms), 2),
            "ms_quartiles": [round(edge, 2) for edge in quantiles(times_ms, n=4)[::2]],
            "resident_mb": round(_forked_mb()),
        }


def _asker(grid: Any) -> Callable[[], float]:
    from flwr.app import ConfigRecord, Message, RecordDict

    (node,) = grid.get_node_ids()
    content = RecordDict({"plan": ConfigRecord({"json": "x" * 800})})  # as long as a plan of fedge's

    def ask() -> float:
        began_s = time.perf_counter()
        (reply,) = grid.send_and_receive([Message(content, node, "train")], timeout=60)
        if reply.has_error():
            raise RuntimeError(f"the client answered with an error: {reply.error}")
        return 1e3 * (time.perf_counter() - began_s)

    return ask


def _forked_mb() -> float:
    """What the process holds that a fork has to map anew: the one beside this one, where there is one."""
    import psutil

    own = psutil.Process()
    return max(process.memory_info().rss for process in own.children(recursive=True) or [own]) / 1e6


COLUMNS = """
| isolation | ms per message | quartiles | resident, MB | load |
| {name} | {ms_per_message:.1f} | {ms_quartiles[0]:.1f} to {ms_quartiles[1]:.1f} | {resident_mb:d} | {load:.1f} |
"""
NOTE = "a client that does nothing, {messages} messages one after another; medians."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=300, metavar="N")


BENCHMARK = Benchmark(
    name="isolation",
    purpose="What a process for each message costs",
    takes="half a minute",
    key=("isolation", "machine"),
    run=run,
    page=lambda rows: per_machine([row | {"name": WAYS[row["isolation"]]} for row in rows], COLUMNS, NOTE),
    options=add_options,
    smoke="--messages 4",
)
