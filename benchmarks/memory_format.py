"""Which memory order of the pictures trains a network faster, and what fedge's rule says.

    python -m benchmarks.memory_format         five minutes on one idle core

One plain SGD step of the same network on the same pictures, in NCHW and in channels-last order in turns, one thread:
median of NCHW / channels last (above 1: channels last is faster) beside the maps per weight by which
fedge.training.memory_format chooses. Writes `results/memory_format.md`.
"""

import argparse
import copy
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.machine import machine
from fedge.models import build
from fedge.training.memory_format import MAPS_PER_WEIGHT, fast_order, maps_per_weight
from fedge.training.pruning.one_shot import prune

SHAPES = {
    "lenet": (1, 28, 28),
    "har_cnn": (9, 1, 128),
    **dict.fromkeys(
        ("resnet8", "resnet20", "mobilenet_v2", "squeezenet", "vgg11", "vgg16", "alexnet"), (3, 32, 32)
    ),
}
BATCHES, LEVELS = (1, 8, 32, 128), (0.0, 0.6)
ORDERS = (torch.contiguous_format, torch.channels_last)
OUT = Path(__file__).parent / "results" / "memory_format.md"


def step_of(
    model: nn.Module, batch_size: int, shape: tuple, order: torch.memory_format
) -> Callable[[], float]:
    """A training step that says how many seconds it took."""
    model = copy.deepcopy(model).train()
    x_BCHW = torch.empty(batch_size, *shape, memory_format=order).normal_()
    y_B = torch.randint(0, 10, (batch_size,))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step() -> float:
        began_s = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(x_BCHW), y_B).backward()
        optimizer.step()
        return time.perf_counter() - began_s

    return step


def row(name: str, batch_size: int, level: float, turns: int) -> str:
    """One line of the table."""
    shape = SHAPES[name]
    model = build(name, num_classes=10, in_channels=shape[0], image_size=shape[1:])
    if level:
        prune(model, level, example_input=torch.zeros(1, *shape))
    steps = [step_of(model, batch_size, shape, order) for order in ORDERS]
    times_s = [[step() for step in steps] for _ in range(turns + 2)][2:]  # the first warm up
    nchw_ms = 1000 * median(nchw for nchw, _ in times_s)
    ratio = median(nchw / last for nchw, last in times_s)
    chosen = "channels last" if fast_order(model, batch_size, shape) is torch.channels_last else "NCHW"
    maps = maps_per_weight(model, batch_size, shape)
    return f"| {name} | {level:g} | {batch_size} | {maps:.2f} | {nchw_ms:.1f} | {ratio:.2f} | {chosen} |"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_format")
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# NCHW against channels last: `python -m benchmarks.memory_format`",
        "",
        f"{machine()}; one thread, {options.turns} turns; "
        f"channels last is chosen from {MAPS_PER_WEIGHT} maps per weight on.",
        "",
        "| network | level | batch | maps per weight | NCHW step, ms | NCHW / channels last | chosen |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines))
    for name, level, batch_size in product(options.models, LEVELS, BATCHES):
        if batch_size > 1 or name not in ("lenet", "har_cnn"):  # a norm of one value, or no maps to speak of
            lines.append(row(name, batch_size, level, options.turns))
            print(lines[-1], flush=True)
    options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
