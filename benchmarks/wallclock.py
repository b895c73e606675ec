"""Does the time follow the multiply-accumulates? Whole training steps, error maps pruned against dense.

    python -m benchmarks.wallclock                              vgg16 and resnet20, keep 0.25, batch 64, one thread
    python -m benchmarks.wallclock --models resnet20 --keep 0.5 --threads 2 --pairs 15

One process; in every pair the contenders take one step each in turn, so that what else the machine does hits all:

    dense           plain PyTorch, NCHW in memory, as a user's loop has it
    dense nhwc      the same network and images in channels-last order
    pruned          the NCHW network inside an ErrorMapPruner, which works in channels-last order by itself;
                    it ranks channels on all instances (equation 11), or on every fourth

Reported: the median over the pairs of the time saved, as a share of the saving counted in MACs. Time is that of the
process's threads (not waiting for a core), so that a busy machine blurs it less. With --memory, peak memory is measured
in a child process per contender, over three steps, above what the process held before the model was built.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from fedge.models import build
from fedge.training.error_map import ErrorMapPruner
from fedge.training.macs import count_macs

OUT = Path(__file__).parent / "results" / "wallclock.jsonl"
CONTENDERS = ("dense", "dense nhwc", "pruned", "pruned, ranked on a quarter")
DENSE, PRUNED = CONTENDERS[:2], CONTENDERS[2:]
SHAPE = (3, 32, 32)


class Contender:
    """A network, its optimiser and its images; calling it makes one training step and says how long it took."""

    def __init__(self, kind: str, model_name: str, batch_size: int, keep: float) -> None:
        self.model = build(model_name, num_classes=10, in_channels=SHAPE[0], image_size=SHAPE[1:])
        generator = torch.Generator().manual_seed(0)
        self.x_BCHW = torch.randn(batch_size, *SHAPE, generator=generator)
        self.y_B = torch.randint(0, 10, (batch_size,), generator=generator)
        rank_every = 1 if kind == "pruned" else 4
        self.pruner = ErrorMapPruner(self.model, keep, rank_every=rank_every) if kind in PRUNED else None
        if self.pruner:
            self.pruner.__enter__()
        if kind == "dense nhwc":
            self.model.to(memory_format=torch.channels_last)
            self.x_BCHW = self.x_BCHW.contiguous(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9)

    def __call__(self) -> float:
        start = time.process_time()
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.x_BCHW), self.y_B).backward()
        self.optimizer.step()
        return time.process_time() - start


def counted_saving(contender: Contender) -> float:
    """Of one step, in MACs."""
    table, batch_size = count_macs(contender.model, SHAPE), len(contender.y_B)
    contender.pruner.reset()
    contender()
    done = batch_size * table.forward + contender.pruner.macs_backward
    return 1 - done / (batch_size * table.training)


def measure(model_name: str, batch_size: int, keep: float, pairs: int) -> dict:
    """Interleaved steps of the contenders."""
    contenders = [Contender(kind, model_name, batch_size, keep) for kind in CONTENDERS]
    for contender in contenders:
        contender()
    times = [[contender() for contender in contenders] for _ in range(pairs)]
    counted = counted_saving(contenders[-1])
    saved = {
        f"{pruned} against {dense}": median(1 - row[CONTENDERS.index(pruned)] / row[place] for row in times)
        for place, dense in enumerate(DENSE)
        for pruned in PRUNED
    }
    return {
        "model": model_name,
        "batch_size": batch_size,
        "keep": keep,
        "threads": torch.get_num_threads(),
        "pairs": pairs,
        "counted_saving": counted,
        "time_saving": saved,
        "time_over_counted": {kind: share / counted for kind, share in saved.items()},
        "step_ms": {
            kind: round(1000 * median(row[place] for row in times), 1)
            for place, kind in enumerate(CONTENDERS)
        },
    }


def peak_memory_mb(kind: str, model_name: str, batch_size: int, keep: float) -> float:
    """Measured by this very file in a child process."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.wallclock",
        "--peak",
        kind,
        model_name,
        str(batch_size),
        str(keep),
    ]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _print_peak(kind: str, model_name: str, batch_size: str, keep: str) -> None:
    torch.set_num_threads(1)
    nn.Linear(1, 1)(torch.zeros(1, 1)).sum().backward()  # the engine's own memory is nobody's
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before_kb = _peak_kb()
    contender = Contender(kind, model_name, int(batch_size), float(keep))
    for _ in range(3):
        contender()
    print((_peak_kb() - before_kb) / 1024)


def _peak_kb() -> int:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet20", "vgg16"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--keep", type=float, default=0.25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--memory", action="store_true", help="measure peak memory too (Linux)")
    parser.add_argument("--peak", nargs=4, metavar=("KIND", "MODEL", "BATCH", "KEEP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        return _print_peak(*arguments.peak)
    torch.set_num_threads(arguments.threads)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for model_name in arguments.models:
        case = (model_name, arguments.batch_size, arguments.keep)
        line = measure(*case, arguments.pairs)
        if arguments.memory:
            line["peak_memory_mb"] = {kind: round(peak_memory_mb(kind, *case), 1) for kind in CONTENDERS}
        with arguments.out.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print(json.dumps(line, indent=1), flush=True)
    return None


if __name__ == "__main__":
    main()
