"""Is a pruned network as much faster as its multiply-accumulates say, and how long does pruning itself take?

    python -m benchmarks.prune_wallclock            two minutes on one idle core

Forward and backward of a batch of 32, dense and pruned to level 0.75 in turns, so that whatever else the machine
does hits both alike; the ratio is the median over turns of pruned / dense within a turn. Then the processor time of
pruning ResNet-110 and of rebuilding it from its record. Writes `results/prune_wallclock.md` and `.json`.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn import functional

from fedge.models import build
from fedge.training.macs import count_macs
from fedge.training.pruning import prune

NETS = ("resnet20", "vgg16", "mobilenet_v2")
INPUT_SHAPE = (3, 32, 32)
LEVEL, BATCH_SIZE, ALLOWED = 0.75, 32, 1.3
RESULTS = Path(__file__).parent / "results"


def network(net: str) -> nn.Module:
    return build(net, num_classes=100, in_channels=3, image_size=32)


def compare(net: str, criterion: str, turns: int) -> dict[str, float | str]:
    """Time and MACs of the pruned network as shares of the dense one's."""
    dense = network(net)
    pruned = copy.deepcopy(dense)
    prune(pruned, LEVEL, example_input=torch.zeros(1, *INPUT_SHAPE), criterion=criterion)
    x_BCHW, y_B = torch.randn(BATCH_SIZE, *INPUT_SHAPE), torch.randint(0, 100, (BATCH_SIZE,))

    def step(model: nn.Module) -> Callable[[], None]:
        return lambda: functional.cross_entropy(model(x_BCHW), y_B).backward()

    ratios, dense_s = [], []
    for _ in range(turns + 2):
        dense_s.append(seconds(step(dense)))
        ratios.append(seconds(step(pruned)) / dense_s[-1])
    time_ratio = median(ratios[2:])  # the first turns warm up
    macs_ratio = count_macs(pruned, INPUT_SHAPE).training / count_macs(dense, INPUT_SHAPE).training
    return {
        "net": net,
        "criterion": criterion,
        "time": time_ratio,
        "macs": macs_ratio,
        "time / macs": time_ratio / macs_ratio,
        "dense_ms": 1000 * median(dense_s[2:]),
    }


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prune_wallclock")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [compare(net, criterion, arguments.turns) for net in NETS for criterion in ("l1", "random")]
    times = pruning_times()
    lines = [
        f"# Pruned to level {LEVEL}, batch {BATCH_SIZE}, one thread: "
        f"`python -m benchmarks.prune_wallclock --turns {arguments.turns}`",
        "",
        f"| net | channels chosen by | time left | MACs left | time / MACs (at most {ALLOWED}) | dense step, ms |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row['net']} | {row['criterion']} | {row['time']:.3f} | {row['macs']:.3f} "
            f"| {row['time / macs']:.2f} | {row['dense_ms']:.0f} |"
            for row in rows
        ),
        "",
        f"ResNet-110: pruned in {times['prune_s']:.2f} s, rebuilt from its record in {times['rebuild_s']:.2f} s.",
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "prune_wallclock.md").write_text("\n".join(lines) + "\n")
    (arguments.out / "prune_wallclock.json").write_text(
        json.dumps({"steps": rows, "resnet110": times}, indent=1)
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
