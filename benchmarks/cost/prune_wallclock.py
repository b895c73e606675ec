"""Is a pruned network as much faster as its multiply-accumulates say, and how long does pruning itself take?

Forward and backward of a batch of 32, dense and pruned to level 0.75 in turns, so that whatever else the machine does
hits both alike; the ratio is the median over turns of pruned / dense within a turn, in processor time of one thread.
Both are measured in NCHW and in channels-last format (fedge/training/memory_format.py says when devices take which),
with freed memory kept, as on devices. What is cut is what l1 and taylor (by 2,000 samples) find in a network trained on
CIFAR-100 (kept in `--cache`, outside the checkout; two hours of one core the first time), and channels at random, which
narrows all layers alike: each to any width, and to multiples of 4 and 16 (`round_to`). Then what PyTorch's time of one
cut goes into, by kind of operator, from torch.profiler, and the processor time of pruning ResNet-110 and of rebuilding
it from its record.
"""

import argparse
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.adapt.base import CACHE, base_network, load_pictures
from benchmarks.adapt.protocol import Split
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.networks import CIFAR_SHAPE, network
from benchmarks.measure.results import Results, Row
from benchmarks.measure.steps import FORMATS, Batch, TrainingStep, interleaved, random_batches, timed
from benchmarks.measure.table import per_machine
from fedge.paths import data_root
from fedge.training.heap import kept_heap
from fedge.training.macs import count_macs
from fedge.training.pruning.one_shot import prune

LEVEL, BATCH_SIZE, CLASSES = 0.75, 32, 100
EPOCHS = {"resnet20": 12, "vgg16": 1, "mobilenet_v2": 2}
CHOICES = ("l1", "taylor", "random")
WIDTHS = (1, 4, 16)  # prune's round_to
RANKING_SAMPLES = 2000
DECOMPOSED, PRUNED_BY_TIME = "resnet20", "resnet110"
KIND_OF_OPERATOR = {  # a number: a convolution, told apart by the kernel's shape, at this place of its inputs
    "aten::mkldnn_convolution": 1,
    "aten::convolution_backward": 2,
    "aten::native_batch_norm": "norms",
    "aten::native_batch_norm_backward": "norms",
    "aten::clamp_min_": "activations",
    "aten::threshold_backward": "activations",
}


def run(options: Options, results: Results) -> None:
    """Every network, choice and width; then what the time of one cut goes into, and the time of pruning."""
    torch.set_num_threads(1)
    pictures, train_count = load_pictures(options.data)
    whole = Split.of_classes(pictures.y_N, train_count)
    stride = max(len(whole.train) // RANKING_SAMPLES, 1)
    ranking = list(pictures.batches(whole.train[::stride]))
    for net in options.nets:
        epochs = EPOCHS[net] if options.epochs is None else options.epochs
        dense = base_network(net, epochs, pictures, whole, options.cache)
        trained = {"net": net, "base_epochs": epochs, "turns": options.turns}
        for choice, round_to in product(options.choices, options.widths):
            pruned = cut(dense, choice, round_to, ranking)
            with kept_heap():
                for row in compare(dense, pruned, options.turns):
                    results.add({"figure": "step", **trained, "choice": choice, "round_to": round_to, **row})
        if net == DECOMPOSED:
            where = {"choice": "taylor", "round_to": options.widths[0], "format": "channels last"}
            for row in decompose(dense, cut(dense, "taylor", options.widths[0], ranking), options.turns):
                results.add({"figure": "kind of operator", **trained, **where, **row})
    results.add({"figure": "pruning", "net": PRUNED_BY_TIME, **pruning_times(options.repeats)})


def cut(dense: nn.Module, choice: str, round_to: int, ranking: list[Batch]) -> nn.Module:
    """A copy, pruned."""
    pruned = copy.deepcopy(dense)
    example = torch.zeros(1, *CIFAR_SHAPE)
    prune(pruned, LEVEL, example_input=example, criterion=choice, round_to=round_to, batches=ranking)
    return pruned


def step_of(model: nn.Module, memory_format: str) -> TrainingStep:
    """Forward and backward of a batch, the network in NCHW as devices hold theirs."""
    own = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    batches = random_batches(BATCH_SIZE, CIFAR_SHAPE, CLASSES)
    return TrainingStep(own, batches, FORMATS[memory_format], update=False)


def compare(dense: nn.Module, pruned: nn.Module, turns: int) -> Iterator[Row]:
    """Time and MACs of the pruned network as shares of the dense one's, in both formats."""
    macs = count_macs(pruned, CIFAR_SHAPE).training / count_macs(dense, CIFAR_SHAPE).training
    for memory_format in FORMATS:
        times = interleaved([step_of(dense, memory_format), step_of(pruned, memory_format)], turns)
        ratio = median(short.cpu_s / long.cpu_s for long, short in times)
        dense_ms = 1000 * median(long.cpu_s for long, _ in times)
        yield {
            "format": memory_format,
            "time": ratio,
            "macs": macs,
            "time_over_macs": ratio / macs,
            "dense_ms": dense_ms,
        }


def decompose(dense: nn.Module, pruned: nn.Module, turns: int) -> Iterator[Row]:
    """What each kind of operator takes, dense and pruned in turns (medians), and what is left of its MACs."""
    steps = [step_of(model, "channels last") for model in (dense, pruned)]
    rows = interleaved([lambda step=step: times_by_kind(step.run) for step in steps], turns)
    dense_macs, pruned_macs = macs_by_kind(dense), macs_by_kind(pruned)
    for kind, _ in rows[0][0].most_common():
        yield {
            "kind": kind,
            "dense_ms": median(long[kind] for long, _ in rows),
            "pruned_ms": median(short[kind] for _, short in rows),
            "time": median(short[kind] / long[kind] for long, short in rows),
            "macs": pruned_macs[kind] / dense_macs[kind] if dense_macs[kind] else None,
        }


def times_by_kind(step: Callable[[], object]) -> Counter[str]:
    """Milliseconds of one step by kind of operator."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as trace:
        step()
    times_ms: Counter[str] = Counter()
    for operator in trace.key_averages(group_by_input_shape=True):
        kind = KIND_OF_OPERATOR.get(operator.key, "others")
        if isinstance(kind, int):
            kind = _kind_of_convolution(operator.input_shapes[kind])
        times_ms[kind] += operator.self_cpu_time_total / 1000
    return times_ms


def macs_by_kind(model: nn.Module) -> Counter[str]:
    """MACs of a training step, by kind of convolution."""
    layers = dict(model.named_modules())
    macs: Counter[str] = Counter()
    for counted in count_macs(model, CIFAR_SHAPE).layers:
        layer = layers[counted.name]
        if isinstance(layer, nn.Conv2d):
            macs[_kind_of_convolution(layer.weight.shape)] += counted.training
    return macs


def _kind_of_convolution(kernel: Any) -> str:
    return "depthwise convolutions" if kernel[1] == 1 else "other convolutions"


def pruning_times(repeats: int) -> dict[str, float]:
    """Processor seconds to prune ResNet-110 to half and to rebuild it; the first call warms up."""
    prune_s, rebuild_s = [], []
    example = torch.zeros(1, *CIFAR_SHAPE)
    for _ in range(repeats + 1):
        model = network(PRUNED_BY_TIME, classes=CLASSES)
        records: list[Any] = []
        prune_s.append(timed(lambda m=model, r=records: r.append(prune(m, 0.5, example_input=example))).cpu_s)
        rebuild_s.append(
            timed(lambda r=records: r[0].rebuild(lambda: network(PRUNED_BY_TIME, classes=CLASSES))).cpu_s
        )
    return {"prune_s": median(prune_s[1:]), "rebuild_s": median(rebuild_s[1:])}


STEP_COLUMNS = """
| net | epochs trained | channels chosen by | widths in multiples of | format | time left | MACs left |\
 time / MACs (aim: at most 1.3) | dense step, ms |
| {net} | {base_epochs} | {choice} | {round_to} | {format} | {time:.3f} | {macs:.3f} | {time_over_macs:.2f} |\
 {dense_ms:.0f} |
"""
KIND_COLUMNS = """
| operators | dense, ms | pruned, ms | time left | MACs left |
| {kind} | {dense_ms:.0f} | {pruned_ms:.0f} | {time:.2f} | {macs:.2f} |
"""
PRUNING_COLUMNS = """
| net | pruned, s | rebuilt, s |
| {net} | {prune_s:.2f} | {rebuild_s:.2f} |
"""


def page(rows: list[Row]) -> str:
    """Steps, kinds of operators, pruning itself."""
    of = {
        figure: [row for row in rows if row["figure"] == figure]
        for figure in ("step", "kind of operator", "pruning")
    }
    setting = f"pruned to level {LEVEL}, batch {BATCH_SIZE}, one thread, freed memory kept, {{turns}} turns."
    kinds = (
        "{net}, {choice}, widths in multiples of {round_to}, {format}, by kind of operator (torch.profiler)."
    )
    parts = [
        per_machine(of["step"], STEP_COLUMNS, setting),
        per_machine(of["kind of operator"], KIND_COLUMNS, kinds),
        per_machine(of["pruning"], PRUNING_COLUMNS, "pruned to half, and rebuilt from the record of it."),
    ]
    return "\n\n".join(part for part in parts if part)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--nets", nargs="+", choices=EPOCHS, default=list(EPOCHS))
    parser.add_argument("--choices", nargs="+", choices=CHOICES, default=CHOICES)
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS, help="prune's round_to")
    parser.add_argument("--epochs", type=int, help=f"of training the dense network; default: {EPOCHS}")
    parser.add_argument("--repeats", type=int, default=5, help="times that ResNet-110 is pruned")
    parser.add_argument("--data", default=str(data_root(None)), help="folder of cifar-100-python, or 'noise'")
    parser.add_argument("--cache", type=Path, default=CACHE, help="trained networks")


BENCHMARK = Benchmark(
    name="prune_wallclock",
    purpose="Networks pruned: time left beside MACs left",
    takes="twenty minutes of one idle core once the networks are trained (two hours); needs CIFAR-100",
    key=("figure", "net", "base_epochs", "choice", "round_to", "format", "kind", "machine"),
    run=run,
    page=page,
    options=add_options,
    smoke="--turns 1 --nets resnet20 --choices taylor --widths 4 --epochs 0 --repeats 1 --data noise",
)
