"""Does it hold at ten thousand devices? Memory of the coordinator and time per message as the fleet grows.

    python -m benchmarks.scale                          100, 1,000 and 10,000 clients that only report
    python -m benchmarks.scale --client dense           the same clients training: a slow benchmark

Needs MNIST in FEDGE_DATA. Each size is a whole `fedge.run` in a process of its own, on Ray with two hosts:
preparation, plans, the egress gate, reports checked and written. Prints a table and writes a JSON line per
size to `--out`.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.process import in_fresh_process, peak_rss_mb, tree_pss_mb
from benchmarks.rows import append_row

OUT = Path(__file__).parent / "results" / "scale.jsonl"
REPORT_ONLY = Path(__file__).with_name("scale_client.py")
COLUMNS = (
    "client",
    "clients",
    "prepare_and_start_s",
    "ms_per_message",
    "coordinator_rss_mb",
    "all_processes_pss_mb",
)


def main() -> None:
    """Run each size, print and write its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--client", default=str(REPORT_ONLY), help="a client program's name or path")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.out.parent.mkdir(exist_ok=True)
    print("  ".join(COLUMNS))
    for clients in options.sizes:
        row = in_fresh_process(run_size, clients, options.rounds, options.client)
        append_row(options.out, row)
        print("  ".join(f"{row[name]!s:>{len(name)}}" for name in COLUMNS), flush=True)


def changes(clients: int, rounds: int, client: str) -> list[str]:
    """What makes a scenario of this size of `mnist-dirichlet`."""
    return [
        'name="scale"',
        f"rounds={rounds}",
        f"client={json.dumps(client)}",
        'data.partition={kind="iid"}',
        'model.name="resnet8"',  # its state is 0.3 MB per device and round
        "model.factory.epochs=0",
        f'fleet=[{{device="jetson-nano", count={clients}, ray={{num_cpus=1}}}}]',
        "engine.hosts=2",
    ]


def run_size(clients: int, rounds: int, client: str) -> dict[str, Any]:
    """One whole run; rounds are timed as the coordinator sees them, and the first, with the start, is left
    out.
    """
    from fedge.console.observer import Observer
    from fedge.launch import run
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
        result = run(
            load_scenario("mnist-dirichlet", changes(clients, rounds, client)),
            f"{folder}/out",
            observer=Clock(),
        )
    later = list(zip(begins_s, ends_s, strict=True))[1:]
    return {
        "client": Path(client).stem,
        "clients": clients,
        "rounds": rounds,
        "messages": result.summary["egress"]["messages"],
        "failures": result.summary["failures"],
        "prepare_and_start_s": round(begins_s[0] - began_s, 1),
        "ms_per_message": round(sum(end - begin for begin, end in later) / len(later) / clients * 1e3, 3),
        "coordinator_rss_mb": round(peak_rss_mb()),
        "all_processes_pss_mb": round(max(pss_mb)),
        "load": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
