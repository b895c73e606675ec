"""Does it hold at ten thousand devices? Memory of the coordinator and time per message as the fleet grows.

Each size is a whole `fedge.run` in a process of its own, on Ray with two hosts, with a client program that opens no
data and sends a whole report through the egress gate: preparation, plans, the gate, reports checked and written.
`--trains --model lenet` makes the same clients train (of ten thousand each on 6 pictures of MNIST): then what a round
takes over what its messages kept two hosts busy is told too.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.process import in_fresh_process, peak_rss_mb, tree_pss_mb
from benchmarks.measure.results import Results, Row
from benchmarks.measure.table import per_machine

HOSTS = 2
TRAINS = Path(__file__).with_name("scale_timed.py")
REPORT_ONLY = Path(__file__).with_name("scale_client.py")
COLUMNS = """
| clients | client program | network | messages | failures | preparation and start, s | ms per message |\
 over handling | coordinator, MB | all processes, MB | folder, MB | its files | load |
| {clients:,} | {client} | {model} | {messages:,} | {failures} | {prepare_and_start_s:.1f} | {ms_per_message:.2f} |\
 {over_handling:.2f} | {coordinator_rss_mb} | {all_processes_pss_mb} | {folder_mb:,} | {files:,} | {load:.1f} |
"""
NOTE = (
    "{scenario}. Milliseconds are of the rounds after the first, if there are any; memory of the coordinator is the "
    "most that its process ever held (resident), in MB of 10^6 bytes. Over handling: what these rounds took, over the "
    "half of what the two hosts were busy with messages."
)


def run(options: Options, results: Results) -> None:
    """Each size in turn."""
    for clients in options.sizes:
        client = str(TRAINS if options.trains else REPORT_ONLY)
        changed = changes(clients, options.rounds, client, options.engine, options.model)
        results.add(in_fresh_process(run_size, clients, options.scenario, client, changed))


def changes(clients: int, rounds: int, client: str, engine: str, model: str) -> list[str]:
    """What makes a scenario of this size of another one."""
    return [
        'name="scale"',
        f"rounds={rounds}",
        f"client={json.dumps(client)}",
        'data.partition={kind="iid"}',
        "data.factory_fraction=0.01",
        "data.split={train=0.85, validation=0.0, test=0.15}",
        f'model.name="{model}"',  # the state of a resnet8 is 0.3 MB per device and round, of a lenet 1.7
        "model.factory.epochs=0",
        "training.epochs=1",
        "schedule={kind='train_only'}",
        f'fleet=[{{device="jetson-nano", count={clients}, ray={{num_cpus=1}}}}]',
        f"engine.hosts={HOSTS}",
        f"engine.kind={engine}",
    ]


def run_size(clients: int, scenario: str, client: str, changed: list[str]) -> Row:
    """One whole run; rounds are timed as the coordinator sees them, all but the first, which holds the start."""
    from fedge.console.observer import Observer
    from fedge.launch import run as run_scenario
    from fedge.scenario.load import load_scenario

    begins_s: list[float] = []
    ends_s: list[float] = []
    pss_mb: list[float] = []

    class Clock(Observer):
        def round_started(self, round: int, clients: int) -> None:
            begins_s.append(time.perf_counter())

        def round_finished(self, figures: Any) -> None:
            ends_s.append(time.perf_counter())
            pss_mb.append(tree_pss_mb())

    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder, "times")
        times.mkdir()
        os.environ["FEDGE_SCALE_TIMES"] = str(times)  # for hosts, which are this process's children
        loaded = load_scenario(scenario, changed)
        result = run_scenario(loaded, f"{folder}/out", observer=Clock())
        coordinator_mb = round(peak_rss_mb())
        busy_s = dict.fromkeys(range(1, len(ends_s) + 1), 0.0)
        for of_host in times.glob("*"):
            for line in of_host.read_text().splitlines():
                busy_s[int(line.split()[0])] += float(line.split()[1])
        held = [path.stat().st_size for path in Path(folder, "out").rglob("*") if path.is_file()]
    took_s = [end - begin for begin, end in zip(begins_s, ends_s, strict=True)]
    first = min(1, len(took_s) - 1)
    later_s, later_busy_s = took_s[first:], list(busy_s.values())[first:]
    return {
        "model": loaded.model.label,
        "over_handling": round(HOSTS * sum(later_s) / sum(later_busy_s), 3) if sum(later_busy_s) else None,
        "folder_mb": round(sum(held) / 1e6),
        "files": len(held),
        "scenario": scenario,
        "client": Path(client).stem,
        "clients": clients,
        "rounds": len(ends_s),
        "messages": result.summary["egress"]["messages"],
        "failures": result.summary["failures"],
        "prepare_and_start_s": round(begins_s[0] - began_s, 1),
        "ms_per_message": round(sum(later_s) / len(later_s) / clients * 1e3, 3),
        "coordinator_rss_mb": coordinator_mb,
        "all_processes_pss_mb": round(max(pss_mb)),
        "load": round(os.getloadavg()[0], 1),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000], help="clients")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trains", action="store_true", help="the clients, in place of answering alone")
    parser.add_argument("--model", default="resnet8", help="the clients' network")
    parser.add_argument("--scenario", default="mnist-dirichlet", help="what the sizes are made of")
    parser.add_argument("--engine", choices=["ray", "inline"], default="ray")


BENCHMARK = Benchmark(
    name="scale",
    purpose="Memory and time per message as the fleet grows",
    takes="five minutes of two cores; needs MNIST",
    key=("scenario", "client", "model", "clients", "machine"),
    run=run,
    page=lambda rows: per_machine(rows, COLUMNS, NOTE),
    options=add_options,
    smoke="--sizes 3 --rounds 2 --scenario quickstart --engine inline",
)
