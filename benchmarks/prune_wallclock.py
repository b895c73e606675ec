"""Is a pruned network as much faster as its multiply-accumulates say, and how long does pruning itself take?

    python -m benchmarks.prune_wallclock            twenty minutes on one idle core, when the networks are trained

Forward and backward of a batch of 32, dense and pruned to level 0.75 in turns, so that whatever else the machine does
hits both alike; the ratio is the median over turns of pruned / dense within a turn. Both are measured on pictures in
plain NCHW order and in channels-last order (memory_format.py says when devices take which). What is cut is what l1 and taylor (by 2,000 pictures) find in a network trained on CIFAR-100 for `EPOCHS` (kept in
`--cache`, outside the checkout; two hours of one core the first time), and channels at random, which narrows all layers
alike: each to any width, and to multiples of 4 and 16 (`round_to`). Then what PyTorch's time of one cut goes into, by
kind of operator, from torch.profiler, and the processor time of pruning ResNet-110 and of rebuilding it from its
record. Writes `results/prune_wallclock.md`, `.json`.
"""

import argparse
import copy
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from benchmarks.accuracy.adapt_protocol import Split
from benchmarks.adapt_base import CACHE, base_network, load_pictures
from benchmarks.machine import machine
from fedge.models import build
from fedge.paths import data_root
from fedge.training.heap import kept_heap
from fedge.training.macs import count_macs
from fedge.training.pruning.one_shot import prune

INPUT_SHAPE = (3, 32, 32)
LEVEL, BATCH_SIZE, ALLOWED = 0.75, 32, 1.3
EPOCHS = {"resnet20": 12, "vgg16": 1, "mobilenet_v2": 2}
CHOICES = ("l1", "taylor", "random")
WIDTHS = (1, 4, 16)  # prune's round_to
RANKING_PICTURES = 2000
DECOMPOSED = "resnet20"
RESULTS = Path(__file__).parent / "results"

FORMATS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
KIND_OF_OPERATOR = {  # a number: a convolution, told apart by the kernel's shape, at this place of its inputs
    "aten::mkldnn_convolution": 1,
    "aten::convolution_backward": 2,
    "aten::native_batch_norm": "norms",
    "aten::native_batch_norm_backward": "norms",
    "aten::clamp_min_": "activations",
    "aten::threshold_backward": "activations",
}


def network(net: str) -> nn.Module:
    return build(net, num_classes=100, in_channels=3, image_size=32)


class Trained(NamedTuple):
    """The nets, by name, and what taylor ranks their channels by."""

    nets: dict[str, nn.Module]
    batches: list[tuple[Tensor, Tensor]]

    @classmethod
    def on_cifar100(cls, names: list[str], data: Path, cache: Path) -> "Trained":
        pictures, train_count = load_pictures(data)
        everything = Split.of_classes(pictures.y_N, train_count)
        nets = {net: base_network(net, EPOCHS[net], pictures, everything, cache) for net in names}
        return cls(
            nets, list(pictures.batches(everything.train[:: len(everything.train) // RANKING_PICTURES]))
        )

    def pruned(self, net: str, choice: str, round_to: int) -> nn.Module:
        model = copy.deepcopy(self.nets[net])
        how = {"criterion": choice, "round_to": round_to, "batches": self.batches}
        prune(model, LEVEL, example_input=torch.zeros(1, *INPUT_SHAPE), **how)
        return model


def step_of(model: nn.Module, memory_format: str) -> Callable[[], None]:
    """Forward and backward of a batch."""
    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # as devices hold theirs
    x_BCHW = torch.randn(BATCH_SIZE, *INPUT_SHAPE).contiguous(memory_format=FORMATS[memory_format])
    y_B = torch.randint(0, 100, (BATCH_SIZE,))
    return lambda: functional.cross_entropy(model(x_BCHW), y_B).backward()


def compare(
    trained: Trained, net: str, choice: str, round_to: int, turns: int
) -> Iterator[dict[str, float | str]]:
    """Time and MACs of the pruned network as shares of the dense one's, in both formats."""
    pruned = trained.pruned(net, choice, round_to)
    for memory_format in FORMATS:
        measured = measure(trained.nets[net], pruned, memory_format, turns)
        yield {"net": net, "choice": choice, "round_to": round_to, "format": memory_format} | measured


def measure(dense: nn.Module, pruned: nn.Module, memory_format: str, turns: int) -> dict[str, float]:
    dense_step, pruned_step = step_of(dense, memory_format), step_of(pruned, memory_format)
    ratios, dense_s = [], []
    for _ in range(turns + 2):
        dense_s.append(seconds(dense_step))
        ratios.append(seconds(pruned_step) / dense_s[-1])
    time_ratio = median(ratios[2:])  # the first turns warm up
    macs_ratio = count_macs(pruned, INPUT_SHAPE).training / count_macs(dense, INPUT_SHAPE).training
    return {
        "time": time_ratio,
        "macs": macs_ratio,
        "time / macs": time_ratio / macs_ratio,
        "dense_ms": 1000 * median(dense_s[2:]),
    }


def times_by_kind(step: Callable[[], None]) -> Counter[str]:
    """Milliseconds of one step by kind of operator."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as trace:
        step()
    times_ms: Counter[str] = Counter()
    for operator in trace.key_averages(group_by_input_shape=True):
        kind = KIND_OF_OPERATOR.get(operator.key, "others")
        if isinstance(kind, int):
            kind = "depthwise convolutions" if operator.input_shapes[kind][1] == 1 else "other convolutions"
        times_ms[kind] += operator.self_cpu_time_total / 1000
    return times_ms


def macs_by_kind(model: nn.Module) -> Counter[str]:
    layers = dict(model.named_modules())
    macs: Counter[str] = Counter()
    for layer in count_macs(model, INPUT_SHAPE).layers:
        if isinstance(layers[layer.name], nn.Conv2d):
            depthwise = layers[layer.name].weight.shape[1] == 1
            macs["depthwise convolutions" if depthwise else "other convolutions"] += layer.training
    return macs


def decompose(*models: nn.Module, turns: int) -> list[dict[str, float | str]]:
    """What each kind of operator takes, dense and pruned in turns (medians), and what is left of its MACs."""
    dense_step, pruned_step = (step_of(model, "channels last") for model in models)
    rows = [(times_by_kind(dense_step), times_by_kind(pruned_step)) for _ in range(turns + 2)][2:]
    dense_macs, pruned_macs = map(macs_by_kind, models)
    return [
        {
            "kind": kind,
            "dense_ms": median(dense[kind] for dense, _ in rows),
            "pruned_ms": median(pruned[kind] for _, pruned in rows),
            "time": median(pruned[kind] / dense[kind] for dense, pruned in rows),
            "macs": pruned_macs[kind] / dense_macs[kind] if dense_macs[kind] else None,
        }
        for kind, _ in rows[0][0].most_common()
    ]


def seconds(work: Callable[[], object]) -> float:
    """Processor time of this process: what others do on the machine counts only as far as it slows our core."""
    started_s = time.process_time()
    work()
    return time.process_time() - started_s


def pruning_times(repeats: int = 5) -> dict[str, float]:
    """Seconds to prune ResNet-110 to half and to rebuild it; the first call warms up."""
    prune_s, rebuild_s = [], []
    for _ in range(repeats + 1):
        model = network("resnet110")
        records = []
        prune_s.append(
            seconds(
                lambda m=model, r=records: r.append(prune(m, 0.5, example_input=torch.zeros(1, *INPUT_SHAPE)))
            )
        )
        rebuild_s.append(seconds(lambda r=records: r[0].rebuild(lambda: network("resnet110"))))
    return {"prune_s": median(prune_s[1:]), "rebuild_s": median(rebuild_s[1:])}


def report(rows: list[dict], kinds: list[dict], times: dict[str, float], options: str) -> str:
    lines = [
        f"# Pruned to level {LEVEL}, batch {BATCH_SIZE}, one thread: "
        f"`python -m benchmarks.prune_wallclock {options}`",
        "",
        f"{machine()}; freed memory kept, as on devices.",
        "",
        "| net | channels chosen by | widths in multiples of | format | time left | MACs left "
        f"| time / MACs (at most {ALLOWED}) | dense step, ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row['net']} | {row['choice']} | {row['round_to']} | {row['format']} | {row['time']:.3f} "
            f"| {row['macs']:.3f} | {row['time / macs']:.2f} | {row['dense_ms']:.0f} |"
            for row in rows
        ),
        *(_kinds_table(kinds) if kinds else ()),
        "",
        f"ResNet-110: pruned in {times['prune_s']:.2f} s, rebuilt from its record in {times['rebuild_s']:.2f} s.",
    ]
    return "\n".join(lines)


def _kinds_table(kinds: list[dict]) -> list[str]:
    return [
        "",
        f"{DECOMPOSED}, {CHOICES[1]}, any width, channels last, by kind of operator "
        "(torch.profiler):",
        "",
        "| operators | dense, ms | pruned, ms | time left | MACs left |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row['kind']} | {row['dense_ms']:.0f} | {row['pruned_ms']:.0f} "
            f"| {row['time']:.2f} | {'-' if row['macs'] is None else format(row['macs'], '.2f')} |"
            for row in kinds
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prune_wallclock")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--nets", nargs="+", choices=EPOCHS, default=list(EPOCHS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--data", type=Path, default=data_root(None), help="folder of cifar-100-python")
    parser.add_argument("--cache", type=Path, default=CACHE, help="trained networks")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trained = Trained.on_cifar100(arguments.nets, arguments.data, arguments.cache)
    cells = product(arguments.nets, CHOICES, WIDTHS)
    with kept_heap():
        rows = [row for cell in cells for row in compare(trained, *cell, arguments.turns)]
    kinds = []
    if DECOMPOSED in arguments.nets:
        pruned = trained.pruned(DECOMPOSED, CHOICES[1], WIDTHS[0])
        kinds = decompose(trained.nets[DECOMPOSED], pruned, turns=arguments.turns)
    times = pruning_times()
    chosen = "" if arguments.nets == list(EPOCHS) else f" --nets {' '.join(arguments.nets)}"
    text = report(rows, kinds, times, f"--turns {arguments.turns}{chosen}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "prune_wallclock.md").write_text(text + "\n")
    results = {"steps": rows, f"{DECOMPOSED}_by_kind": kinds, "resnet110": times}
    (arguments.out / "prune_wallclock.json").write_text(json.dumps(results, indent=1))
    print(text)


if __name__ == "__main__":
    main()
