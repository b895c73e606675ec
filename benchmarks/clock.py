"""How far the virtual clock is from a real one, on the machine that runs this.

    python -m benchmarks.clock                    about two minutes on one core

The host is made a device: its bandwidth is that of a long copy, its usable throughput such that the clock is
right about ResNet-20 with batches of 32. Then the clock's formula predicts the training step of other networks,
batches and levels, and each is compared with the processor time that it really takes (median of `--repeats`
steps, one thread). Processor time and not wall time, so that other work on the machine counts less.
"""

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.networks import SHAPES, network
from fedge.catalog.devices import DeviceProfile, profile
from fedge.device.budget.clock import Work, round_cost
from fedge.device.memory.peak import OPTIMIZERS, peak_training_memory, train_steps
from fedge.scenario.schema import Clock
from fedge.training.macs import count_macs
from fedge.training.memory_format import fast_order

OUT = Path(__file__).parent / "results" / "clock.jsonl"
CALIBRATION = ("resnet20", 0.0, 32)
CELLS = [
    ("resnet20", 0.0, 8),
    ("resnet20", 0.5, 32),
    ("lenet", 0.0, 8),
    ("lenet", 0.0, 32),
    ("lenet", 0.5, 32),
    ("squeezenet", 0.0, 32),
    ("squeezenet", 0.5, 32),
    ("mobilenet_v2", 0.0, 8),
    ("mobilenet_v2", 0.0, 32),
    ("mobilenet_v2", 0.5, 32),
]


def main() -> None:
    """Calibrate, measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=11, help="steps per cell")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    host = calibrated_host(options.repeats)
    print(f"host: {host.train_gflops:.1f} GFLOP/s, {host.memory_gbs:.1f} GB/s")
    rows = [measure(host, *cell, options.repeats) for cell in CELLS]
    for row in rows:
        print(
            f"{row['model']:13} level {row['level']:.1f} batch {row['batch_size']:3}  predicted"
            f" {row['predicted_s'] * 1e3:7.1f} ms  measured {row['measured_s'] * 1e3:7.1f} ms"
            f"  predicted / measured {row['ratio']:.2f}"
        )
    ratios = [row["ratio"] for row in rows]
    print(
        f"predicted / measured: {min(ratios):.2f} to {max(ratios):.2f}, median {statistics.median(ratios):.2f}"
    )
    options.out.parent.mkdir(exist_ok=True)
    lines = [{"host_train_gflops": host.train_gflops, "host_memory_gbs": host.memory_gbs}, *rows]
    options.out.write_text("".join(json.dumps(line) + "\n" for line in lines))


def calibrated_host(repeats: int) -> DeviceProfile:
    """This machine as a device: two numbers measured, the others of no matter here."""
    source, target = torch.ones(32 * 2**20), torch.empty(32 * 2**20)
    copy_s = statistics.median(_processor_s(lambda: target.copy_(source)) for _ in range(repeats))
    host = dataclasses.replace(profile("raspberry-pi-4"), memory_gbs=2 * source.nbytes / copy_s / 1e9)
    work, measured_s = step(*CALIBRATION, repeats)
    traffic_s = round_cost(host, dataclasses.replace(work, macs=0), Clock()).compute_s
    return dataclasses.replace(host, train_gflops=2 * work.macs / (measured_s - traffic_s) / 1e9)


def measure(host: DeviceProfile, name: str, level: float, batch_size: int, repeats: int) -> dict[str, Any]:
    """One training step, predicted and measured."""
    work, measured_s = step(name, level, batch_size, repeats)
    predicted_s = round_cost(host, work, Clock()).compute_s
    return {
        "model": name,
        "level": level,
        "batch_size": batch_size,
        "predicted_s": predicted_s,
        "measured_s": measured_s,
        "ratio": predicted_s / measured_s,
    }


def step(name: str, level: float, batch_size: int, repeats: int) -> tuple[Work, float]:
    """A training step's counts, and the processor seconds it takes: the median after one to warm up."""
    shape, model = SHAPES[name], network(name, level)
    work = Work(
        macs=batch_size * count_macs(model, shape).training,
        steps=1,
        memory_bytes=peak_training_memory(lambda: model, batch_size=batch_size, input_shape=shape),
        received_bytes=0,
        sent_bytes=0,
    )
    model.train()
    update = OPTIMIZERS["sgd"](model.parameters())
    order = fast_order(model, batch_size, shape)
    taken = [
        _processor_s(lambda: train_steps(1, model, update, batch_size, shape, None, order))
        for _ in range(repeats + 1)
    ]
    return work, statistics.median(taken[1:])


def _processor_s(work: Any) -> float:
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


if __name__ == "__main__":
    main()
