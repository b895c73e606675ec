"""What fedge costs on top of the work itself.

    python -m benchmarks.overhead                 about six minutes on two cores; needs MNIST in FEDGE_DATA
    python -m benchmarks.overhead --repeats 1     a look

Prints and writes to `--out`: the start (from the first import to the first reply), milliseconds per message
of a client that does nothing, both beside Flower's own simulation with the same client program, and the
seconds of a round of real training over those of a bare PyTorch loop. The runs take turns and each has a
process of its own; figures are medians.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import overhead_messages, overhead_rounds
from benchmarks.process import in_fresh_process

OUT = Path(__file__).parent / "results" / "overhead.json"


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind")
    parser.add_argument("--clients", type=int, default=1000, help="clients that do nothing")
    parser.add_argument("--rounds", type=int, default=12, help="rounds of real training")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    figures = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_before": os.getloadavg()[0],
        "messages": messages(options.repeats, options.clients),
        "rounds": training_rounds(options.rounds),
        "load_after": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1) + "\n")
    show(figures)


def messages(repeats: int, clients: int) -> dict[str, dict[str, Any]]:
    """Per kind of grid: medians over `repeats` runs of two rounds each, after the first 1,000 messages."""
    kinds = (overhead_messages.fedge_ray, overhead_messages.flower_simulation, overhead_messages.fedge_inline)
    rows: dict[str, list[dict[str, Any]]] = {kind.__name__: [] for kind in kinds}
    for _ in range(repeats):
        for kind in kinds:
            rows[kind.__name__].append(in_fresh_process(kind, clients, 2))
    return {name: _medians(found) for name, found in rows.items()}


def _medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    per_message_ms = [value for row in rows for value in row["ms_per_message"]]
    return {
        "start_s": round(median(row["start_s"] for row in rows), 2),
        "start_s_range": [round(choose(row["start_s"] for row in rows), 2) for choose in (min, max)],
        "ms_per_message": round(median(per_message_ms), 3),
        "ms_per_message_range": [round(choose(per_message_ms), 3) for choose in (min, max)],
        "coordinator_rss_mb": round(max(row["coordinator_rss_mb"] for row in rows)),
        "all_processes_pss_mb": round(max(row["all_processes_pss_mb"] for row in rows)),
    }


def training_rounds(rounds: int) -> dict[str, Any]:
    """Medians of the rounds after the first, and of the ratios of each pair."""
    with tempfile.TemporaryDirectory() as folder:
        found = in_fresh_process(overhead_rounds.paired_rounds, rounds, f"{folder}/out")
    return {
        "pairs": rounds - 1,
        "clock": _ratio(found["fedge_s"], found["bare_s"]),
        "processor": _ratio(found["fedge_cpu_s"], found["bare_cpu_s"]),
    }


def _ratio(fedge_s: list[float], bare_s: list[float]) -> dict[str, Any]:
    """Medians over the rounds after the first; the ratio is the median of the pairs' ratios, with its quartiles."""
    ratios = sorted(ours / theirs for ours, theirs in list(zip(fedge_s, bare_s, strict=True))[1:])
    return {
        "fedge_s": round(median(fedge_s[1:]), 3),
        "bare_s": round(median(bare_s[1:]), 3),
        "ratio": round(median(ratios), 3),
        "ratio_quartiles": [round(ratios[len(ratios) // 4], 3), round(ratios[-1 - len(ratios) // 4], 3)],
    }


def show(figures: dict[str, Any]) -> None:
    """The table, as plain text."""
    print(f"{figures['machine']}; load {figures['load_before']:.1f} to {figures['load_after']:.1f}")
    print(f"{'':20}{'start s':>10}{'ms/message':>12}{'coordinator MB':>16}{'all processes MB':>18}")
    for name, row in figures["messages"].items():
        print(
            f"{name:20}{row['start_s']:>10.1f}{row['ms_per_message']:>12.2f}"
            f"{row['coordinator_rss_mb']:>16}{row['all_processes_pss_mb']:>18}"
        )
    for kind in ("clock", "processor"):
        row = figures["rounds"][kind]
        print(
            f"training, {kind} seconds per round: fedge {row['fedge_s']:.2f}, bare loop {row['bare_s']:.2f}, "
            f"ratio {row['ratio']:.3f} (quartiles {row['ratio_quartiles']})"
        )


if __name__ == "__main__":
    main()
