"""Estimated against measured peak training memory.

    python -m benchmarks.memory                   about three minutes on two cores
    python -m benchmarks.memory --models lenet    a look

Each line is one network, pruned to one level, trained with one batch size and one optimiser: the estimate of
fedge.device.memory on fake tensors, the peak of what torch's CPU allocator handed out in two real training steps,
and how far the estimate is off. Lines go to `--out` as they are finished.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine
from benchmarks.measure.allocator import allocator_peak
from benchmarks.networks import SHAPES, network
from fedge.device.memory.peak import peak_training_memory

OUT = Path(__file__).parent / "results" / "memory.jsonl"
BATCHES = (8, 32)
LEVELS = (0.0, 0.3, 0.7)
METHODS = ({"optimizer": "sgd"}, {"optimizer": "momentum"}, {"optimizer": "sgd", "error_maps": 0.25})


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.parent.mkdir(exist_ok=True)
    worst = 0.0
    with options.out.open("w") as out:
        for row in rows(options.models):
            worst = max(worst, abs(row["error"]))
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(
                f"{row['model']:13} level {row['level']:.1f} batch {row['batch_size']:3} {row['optimizer']:9}"
                f"error maps {row['error_maps'] or 1:<5} estimated {row['estimated'] / 1e6:8.3f} MB"
                f"  measured {row['measured'] / 1e6:8.3f} MB  {row['error']:+.3%}  in {row['estimate_s']:.1f} s"
            )
    print(f"largest error {worst:.3%}; {machine()}")


def rows(models: list[str]) -> Iterator[dict[str, Any]]:
    """One measured cell after the other."""
    for name, level in itertools.product(models, LEVELS):
        shape, model = SHAPES[name], network(name, level)
        for batch_size, method in itertools.product(BATCHES, METHODS):
            plan = {"batch_size": batch_size, "input_shape": shape, **method}
            began_s = time.perf_counter()
            estimated = peak_training_memory(lambda model=model: model, **plan)
            estimate_s = time.perf_counter() - began_s
            measured = allocator_peak(model, **plan)
            yield {
                "model": name,
                "level": level,
                "batch_size": batch_size,
                "optimizer": method["optimizer"],
                "error_maps": method.get("error_maps"),
                "estimated": estimated,
                "measured": measured,
                "error": estimated / measured - 1,
                "estimate_s": round(estimate_s, 2),
            }


if __name__ == "__main__":
    main()
