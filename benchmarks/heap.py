"""Does training gain by keeping the memory that it frees?

    python -m benchmarks.heap               three minutes on one idle core

Training steps as devices make them, in two processes in turns: one in fedge.training.heap's `kept_heap`, one outside
(malloc's thresholds cannot be put back within a process). One thread, batch 32; medians over the turns of kept /
outside, and what the kernel counts of each process: page faults per step and the most memory resident. Writes
`results/heap.md`.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import torch

from benchmarks.machine import machine
from benchmarks.memory_format import SHAPES, step_of
from fedge.models import build
from fedge.training.heap import kept_heap
from fedge.training.memory_format import fast_order

BATCH_SIZE = 32
WAYS = {"outside": nullcontext, "kept": kept_heap}
OUT = Path(__file__).parent / "results" / "heap.md"


def answer_steps(way: str, name: str) -> None:
    """In a process of its own: a step for every line that comes in, and what the process has taken so far."""
    torch.set_num_threads(1)
    shape = SHAPES[name]
    model = build(name, num_classes=10, in_channels=shape[0], image_size=shape[1:])
    step = step_of(model, BATCH_SIZE, shape, fast_order(model, BATCH_SIZE, shape))
    with WAYS[way]():
        for _ in sys.stdin:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            time_s = step()
            usage = resource.getrusage(resource.RUSAGE_SELF)
            print(json.dumps([time_s, usage.ru_minflt - before, usage.ru_maxrss / 1024]), flush=True)


class Trainer:
    """Such a process, as seen from here."""

    def __init__(self, way: str, name: str) -> None:
        command = [sys.executable, "-m", "benchmarks.heap", "--steps", way, name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self) -> tuple[float, int, float]:
        """Seconds, page faults of one step; megabytes resident at most so far."""
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return tuple(json.loads(self.process.stdout.readline()))

    def end(self) -> None:
        self.process.communicate()


def row(name: str, turns: int) -> str:
    """One line of the table."""
    trainers = [Trainer(way, name) for way in WAYS]
    steps = [[trainer.step() for trainer in trainers] for _ in range(turns + 3)][3:]  # the first warm up
    for trainer in trainers:
        trainer.end()
    ratio = median(kept[0] / outside[0] for outside, kept in steps)
    outside, kept = zip(*steps, strict=True)
    outside_ms = 1000 * median(step[0] for step in outside)
    faults = " | ".join(f"{median(step[1] for step in way):,.0f}" for way in (outside, kept))
    resident = " | ".join(f"{way[-1][2]:.0f}" for way in (outside, kept))
    return f"| {name} | {outside_ms:.1f} | {ratio:.2f} | {faults} | {resident} |"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heap")
    parser.add_argument("--turns", type=int, default=31)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--steps", nargs=2, metavar=("WAY", "NETWORK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps:
        return answer_steps(*options.steps)
    lines = [
        "# Freed memory kept: `python -m benchmarks.heap`",
        "",
        f"{machine()}, {' '.join(platform.libc_ver())}; one thread, batch {BATCH_SIZE}, "
        f"{options.turns} turns.",
        "",
        "| network | step, ms | kept / outside | page faults per step | kept | MB resident at most | kept |",
        "| --- " * 7 + "|",
    ]
    print("\n".join(lines))
    for name in SHAPES:
        lines.append(row(name, options.turns))
        print(lines[-1], flush=True)
    options.out.write_text("\n".join(lines) + "\n")
    return None


if __name__ == "__main__":
    main()
