"""Does the time follow the multiply-accumulates when error maps are pruned? Whole training steps against dense ones.

One process, mini-batches of CIFAR-10; in every pair the contenders take one step each in turn, so that what else the
machine does hits all:

    dense           plain PyTorch, NCHW in memory, as a user's loop has it
    dense nhwc      the same network and samples in channels-last format, as fedge's devices train
    all maps kept   the NCHW network inside an ErrorMapPruner that keeps every map but runs its own passes all the same:
                    what is saved against it is saved by leaving maps out, the rest by how fast those passes are
    pruned          the same, of which `keep` are kept. The pruner works in channels-last format by itself

Reported: the median over the pairs of the time saved, as a share of the saving counted in MACs, by the wall clock and
by the processor seconds of all threads (which a busy machine blurs less). Peak memory, one thread: of tensors, by the
allocator's own events; and resident (Linux), the median of child processes over three steps above what each held
before the network was built, freed tensors given back at once so that the heap's fragments do not count.
"""

import argparse
import gc
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.measure.allocator import allocator_peak
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.networks import CIFAR_SHAPE, SHAPES, network
from benchmarks.measure.process import in_fresh_process
from benchmarks.measure.results import Results, Row
from benchmarks.measure.steps import Batch, TrainingStep, interleaved, random_batches
from benchmarks.measure.table import per_machine
from fedge.data.datasets import load_dataset
from fedge.paths import data_root
from fedge.training.error_map import ErrorMapPruner
from fedge.training.macs import count_macs

CONTENDERS = ("dense", "dense nhwc", "all maps kept", "pruned")
ALL_KEPT = 0.9999  # 1 would leave PyTorch's own backward in place; rounded, this is every channel
RETURNED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(1 << 18)}


def load_batches(data: str, batch_size: int, count: int = 8) -> list[Batch]:
    """The first mini-batches of CIFAR-10, normalised; noise if `data` is 'noise'."""
    if data == "noise":
        return random_batches(batch_size, CIFAR_SHAPE, count=count)
    cifar = load_dataset("cifar10", data)
    x_NCHW = torch.from_numpy(cifar.x[: batch_size * count].copy()).float() / 255
    mean_C, std_C = torch.tensor(cifar.mean), torch.tensor(cifar.std)
    x_NCHW = (x_NCHW - mean_C[:, None, None]) / std_C[:, None, None]
    y_N = torch.from_numpy(cifar.y[: len(x_NCHW)].copy())
    return list(zip(x_NCHW.split(batch_size), y_N.split(batch_size), strict=True))


class Contender(TrainingStep):
    """A training step of one kind; `pruner` is None for the dense ones."""

    def __init__(self, kind: str, name: str, batches: list[Batch], keep: float) -> None:
        model = network(name)
        keep_of = {"pruned": keep, "all maps kept": ALL_KEPT}
        self.pruner = ErrorMapPruner(model, keep_of[kind]) if kind in keep_of else None
        if self.pruner:
            self.pruner.__enter__()
        memory_format = torch.channels_last if kind == "dense nhwc" else torch.contiguous_format
        super().__init__(model.to(memory_format=memory_format), batches, memory_format)


def run(options: Options, results: Results) -> None:
    """Every network on every number of threads."""
    batches = load_batches(options.data, options.batch_size)
    for name in options.models:
        memory_mb = peak_memory_mb(name, options.batch_size, options.keep, options.children)
        for threads in options.threads:
            torch.set_num_threads(threads)
            results.add(measure(name, batches, options.keep, options.pairs) | {"peak_memory_mb": memory_mb})


def measure(name: str, batches: list[Batch], keep: float, pairs: int) -> Row:
    """Interleaved steps of the contenders."""
    contenders = [Contender(kind, name, batches, keep) for kind in CONTENDERS]
    times = interleaved(contenders, pairs, warm_up=1)
    counted = counted_saving(contenders[-1], len(batches[0][1]))

    def share(clock: str, dense: int) -> float:
        """Time saved over MACs saved, against that contender."""
        saved = median(1 - getattr(row[-1], clock) / getattr(row[dense], clock) for row in times)
        return round(saved / counted, 3)

    return {
        "model": name,
        "batch_size": len(batches[0][1]),
        "keep": keep,
        "threads": torch.get_num_threads(),
        "pairs": pairs,
        "counted_saving": round(counted, 3),
        "share": {
            clock: {dense: share(clock, place) for place, dense in enumerate(CONTENDERS[:-1])}
            for clock in ("wall_s", "cpu_s")
        },
        "step_ms": {
            kind: round(1000 * median(row[place].wall_s for row in times), 1)
            for place, kind in enumerate(CONTENDERS)
        },
    }


def counted_saving(contender: Contender, batch_size: int) -> float:
    """Of one step of the pruned contender, in MACs."""
    assert contender.pruner is not None
    table = count_macs(contender.model, CIFAR_SHAPE)
    before = contender.pruner.cost
    contender.run()
    done = batch_size * table.forward + (contender.pruner.cost - before).macs
    return 1 - done / (batch_size * table.training)


def peak_memory_mb(name: str, batch_size: int, keep: float, children: int) -> dict[str, dict[str, float]]:
    """Of tensors and resident, by contender, in MB of 10^6 bytes."""
    torch.set_num_threads(1)
    model = network(name)
    sizes: dict[str, Any] = {"batch_size": batch_size, "input_shape": CIFAR_SHAPE}
    return {
        "tensors": {
            kind: round(allocator_peak(model, **sizes, error_maps=maps) / 1e6, 1)
            for kind, maps in (("dense", None), ("pruned", keep))
        },
        "resident": {
            kind: round(median(_in_child(kind, name, batch_size, keep) for _ in range(children)), 1)
            for kind in ("dense", "pruned")
        },
    }


def _in_child(*case: object) -> float:
    """Children, of which each finds its pages laid out a little differently."""
    return float(in_fresh_process(resident_mb, *case, environment=RETURNED_AT_ONCE))


def resident_mb(kind: str, name: str, batch_size: int, keep: float) -> float:
    """The most of three steps, above what this process held before; in MB of 10^6 bytes."""
    torch.set_num_threads(1)
    batches = random_batches(batch_size, CIFAR_SHAPE)
    small = [(x_BCHW[:2], y_B[:2]) for x_BCHW, y_B in batches]
    Contender(kind, name, small, keep).run()  # code that comes into memory counts for nobody
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before_kb = _memory_kb("VmRSS")
    contender = Contender(kind, name, batches, keep)
    for _ in range(3):
        contender.run()
    return (_memory_kb("VmHWM") - before_kb) * 1024 / 1e6


def _memory_kb(field: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(field)).split()[1])


COLUMNS = """
| network | batch | keep | threads | pairs | dense, ms | dense nhwc, ms | all maps kept, ms | pruned, ms | MACs saved |\
 share of it by the clock: against dense | dense nhwc | all maps kept |\
 in processor time: against dense | dense nhwc | all maps kept |\
 tensors, MB: dense | pruned | resident, MB: dense | pruned |
| {model} | {batch_size} | {keep:g} | {threads} | {pairs} | {step_ms[dense]:.0f} | {step_ms[dense nhwc]:.0f} |\
 {step_ms[all maps kept]:.0f} | {step_ms[pruned]:.0f} | {counted_saving:.2f} |\
 {share[wall_s][dense]:.2f} | {share[wall_s][dense nhwc]:.2f} | {share[wall_s][all maps kept]:.2f} |\
 {share[cpu_s][dense]:.2f} | {share[cpu_s][dense nhwc]:.2f} | {share[cpu_s][all maps kept]:.2f} |\
 {peak_memory_mb[tensors][dense]:.1f} | {peak_memory_mb[tensors][pruned]:.1f} |\
 {peak_memory_mb[resident][dense]:.1f} | {peak_memory_mb[resident][pruned]:.1f} |
"""
NOTE = "medians over the pairs; peak memory on one thread."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=["resnet20", "vgg16"], choices=SHAPES)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--keep", type=float, default=0.25, help="share of error-map channels kept")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=9, help="turns of one step each")
    parser.add_argument("--children", type=int, default=5, help="processes whose resident memory is taken")
    parser.add_argument(
        "--data", default=str(data_root(None)), help="folder of cifar-10-batches-py, or 'noise'"
    )


BENCHMARK = Benchmark(
    name="wallclock",
    purpose="Error maps pruned: time saved beside MACs saved",
    takes="fifteen minutes of two idle cores; needs CIFAR-10",
    key=("model", "batch_size", "keep", "threads", "machine"),
    run=run,
    page=lambda rows: per_machine(rows, COLUMNS, NOTE),
    options=add_options,
    smoke="--models resnet8 --batch-size 8 --threads 1 --pairs 1 --children 1 --data noise",
)
