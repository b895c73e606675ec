"""Does the time follow the multiply-accumulates? Whole training steps, error maps pruned against dense.

    FEDGE_DATA=... python -m benchmarks.wallclock               vgg16 and resnet20, keep 0.25, one thread and two
    python -m benchmarks.wallclock --models resnet20 --keep 0.5 --threads 2 --pairs 15

One process, mini-batches of CIFAR-10; in every pair the contenders take one step each in turn, so that what else the
machine does hits all:

    dense           plain PyTorch, NCHW in memory, as a user's loop has it
    dense nhwc      the same network and images in channels-last order
    all maps kept   the NCHW network inside an ErrorMapPruner that keeps every map but runs its own passes all the same:
                    what is saved against it is saved by leaving maps out, the rest by how fast those passes are
    pruned          the same, of which `keep` are kept. The pruner works in channels-last order by itself

Reported: the median over the pairs of the time saved, as a share of the saving counted in MACs, by the wall clock and
by the processor seconds of all threads (which a busy machine blurs less). Peak memory, one thread: of tensors, by the
allocator's own events; and resident (Linux), the median of five child processes over three steps above what each held
before the network was built, freed tensors given back at once so that the heap's fragments do not count.
Writes `results/wallclock.jsonl` anew.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.measure.allocator import allocator_peak
from benchmarks.rows import append_row
from fedge.data.datasets import load_dataset
from fedge.models import build
from fedge.paths import data_root
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.macs import count_macs

OUT = Path(__file__).parent / "results" / "wallclock.jsonl"
CONTENDERS = ("dense", "dense nhwc", "all maps kept", "pruned")
ALL_KEPT = 0.9999  # 1 would leave PyTorch's own backward in place; rounded, this is every channel
SHAPE = (3, 32, 32)
CLOCKS = {"clock": time.perf_counter, "processor": time.process_time}
Batch = tuple[Tensor, Tensor]


def load_batches(batch_size: int, count: int = 8) -> list[Batch]:
    """The first mini-batches of CIFAR-10, normalised."""
    data = load_dataset("cifar10", data_root(None))
    x_NCHW = torch.from_numpy(data.x[: batch_size * count].copy()).float() / 255
    mean_C, std_C = torch.tensor(data.mean), torch.tensor(data.std)
    x_NCHW = (x_NCHW - mean_C[:, None, None]) / std_C[:, None, None]
    y_N = torch.from_numpy(data.y[: len(x_NCHW)].copy())
    return list(zip(x_NCHW.split(batch_size), y_N.split(batch_size), strict=True))


class Contender:
    """A network, its optimiser and its images; calling it makes one training step and says how long it took."""

    def __init__(self, kind: str, model_name: str, batches: list[Batch], keep: float) -> None:
        self.model = build(model_name, num_classes=10, in_channels=SHAPE[0], image_size=SHAPE[1:])
        keep_of = {"pruned": keep, "all maps kept": ALL_KEPT}
        self.pruner = ErrorMapPruner(self.model, keep_of[kind]) if kind in keep_of else None
        if self.pruner:
            self.pruner.__enter__()
        if kind == "dense nhwc":
            self.model.to(memory_format=torch.channels_last)
            batches = [(x_BCHW.contiguous(memory_format=torch.channels_last), y_B) for x_BCHW, y_B in batches]
        self.batches = cycle(batches)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9)

    def __call__(self) -> dict[str, float]:
        x_BCHW, y_B = next(self.batches)
        start = {name: clock() for name, clock in CLOCKS.items()}
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(x_BCHW), y_B).backward()
        self.optimizer.step()
        return {name: clock() - start[name] for name, clock in CLOCKS.items()}


def counted_saving(contender: Contender, batch_size: int) -> float:
    """Of one step, in MACs."""
    table = count_macs(contender.model, SHAPE)
    before = contender.pruner.cost
    contender()
    done = batch_size * table.forward + (contender.pruner.cost - before).macs
    return 1 - done / (batch_size * table.training)


def measure(model_name: str, batches: list[Batch], keep: float, pairs: int) -> dict:
    """Interleaved steps of the contenders."""
    contenders = [Contender(kind, model_name, batches, keep) for kind in CONTENDERS]
    for contender in contenders:
        contender()
    times = [[contender() for contender in contenders] for _ in range(pairs)]
    counted = counted_saving(contenders[-1], len(batches[0][1]))

    def share(clock: str, dense: int) -> float:
        """Time saved over MACs saved, against that contender."""
        return round(median(1 - row[-1][clock] / row[dense][clock] for row in times) / counted, 3)

    return {
        "machine": machine(),
        "model": model_name,
        "batch_size": len(batches[0][1]),
        "keep": keep,
        "threads": torch.get_num_threads(),
        "pairs": pairs,
        "counted_saving": round(counted, 3),
        "time_saving_over_counted": {
            clock: {f"against {dense}": share(clock, place) for place, dense in enumerate(CONTENDERS[:-1])}
            for clock in CLOCKS
        },
        "step_ms": {
            kind: round(1000 * median(row[place]["clock"] for row in times), 1)
            for place, kind in enumerate(CONTENDERS)
        },
    }


def peak_memory_mb(model_name: str, batch_size: int, keep: float) -> dict[str, dict[str, float]]:
    """Of tensors and resident, by contender."""
    model = build(model_name, num_classes=10, in_channels=SHAPE[0], image_size=SHAPE[1:])
    kept = {"dense": None, "pruned": keep}
    torch.set_num_threads(1)
    return {
        "tensors": {
            kind: round(
                allocator_peak(model, batch_size=batch_size, input_shape=SHAPE, error_maps=maps) / 1e6, 1
            )
            for kind, maps in kept.items()
        },
        "resident": {kind: round(_resident_mb(kind, model_name, batch_size, keep), 1) for kind in kept},
    }


def _resident_mb(*case: object, repeats: int = 5) -> float:
    """Measured by this very file in child processes, of which each finds its pages laid a little otherwise."""
    command = [sys.executable, "-m", "benchmarks.wallclock", "--peak", *map(str, case)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 18)}
    run = partial(subprocess.run, command, capture_output=True, text=True, check=True, env=environment)
    return median(float(run().stdout) for _ in range(repeats))


def _print_peak(kind: str, model_name: str, batch_size: str, keep: str) -> None:
    torch.set_num_threads(1)
    x_BCHW, y_B = torch.zeros(int(batch_size), *SHAPE), torch.zeros(int(batch_size), dtype=torch.long)
    Contender(
        kind, model_name, [(x_BCHW[:2], y_B[:2])], float(keep)
    )()  # code that comes into memory is nobody's
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before_kb = _memory_kb("VmRSS")
    contender = Contender(kind, model_name, [(x_BCHW, y_B)], float(keep))
    for _ in range(3):
        contender()
    print((_memory_kb("VmHWM") - before_kb) * 1024 / 1e6)


def _memory_kb(field: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(field)).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet20", "vgg16"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--keep", type=float, default=0.25)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, help="default: 15 for a resnet, 5 for others")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--peak", nargs=4, metavar=("KIND", "MODEL", "BATCH", "KEEP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        return _print_peak(*arguments.peak)
    batches = load_batches(arguments.batch_size)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("")
    for model_name in arguments.models:
        memory_mb = peak_memory_mb(model_name, arguments.batch_size, arguments.keep)
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            pairs = arguments.pairs or (15 if model_name.startswith("resnet") else 5)
            line = measure(model_name, batches, arguments.keep, pairs) | {"peak_memory_mb": memory_mb}
            append_row(arguments.out, line)
            print(json.dumps(line, indent=1), flush=True)
    return None


if __name__ == "__main__":
    main()
