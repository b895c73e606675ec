"""Where our products over few channels are faster than PyTorch's, and what fedge's rule says.

    python -m benchmarks.direct_convolution       a minute on one idle core

The three products of an error-map pruned layer with 3 x 3 kernels, a quarter of the maps kept, 64 instances, one
thread: by fedge/training/direct_convolution.c and by PyTorch's convolutions in turns; medians of PyTorch / ours (above
1: ours is faster; * chosen by the rule by which layers choose). Writes `results/direct_convolution.md`.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch

from benchmarks.machine import machine
from fedge.training import direct_convolution
from fedge.training.geometry import Geometry
from fedge.training.kept_products import convolve, propagate, weight_gradient

INSTANCES, KEPT = 64, 0.25
# I channels in, C out, rows and columns of the input, stride
LAYERS = (
    (3, 16, 32, 1), (6, 6, 32, 1), (10, 20, 16, 1), (16, 16, 64, 1), (16, 16, 32, 1), (16, 32, 32, 2),
    (32, 32, 32, 1), (32, 32, 16, 1), (32, 64, 16, 2), (64, 64, 32, 1), (64, 64, 16, 1), (64, 64, 8, 1),
    (16, 16, 4, 1), (64, 64, 4, 1), (96, 96, 16, 1), (128, 128, 16, 1), (128, 128, 8, 1), (256, 256, 8, 1),
    (512, 512, 4, 1), (16, 3, 32, 1), (3, 16, 32, 1), (16, 8, 32, 1), (8, 16, 32, 1), (64, 3, 8, 1), (3, 64, 8, 1),
)  # fmt: skip
PRODUCTS = ("forward", "error propagation", "weight gradient")
OUT = Path(__file__).parent / "results" / "direct_convolution.md"


def products_of(
    inputs: int, channels: int, size: int, stride: int
) -> list[tuple[Callable[[], object], bool, bool]]:
    """A layer's three products, each with whether the rule takes ours for it, and whether it can."""
    geometry = Geometry((3, 3), (stride, stride), (1, 1), (1, 1), groups=1, depthwise=False)
    last = torch.channels_last
    x_BIHW = torch.randn(INSTANCES, inputs, size, size).contiguous(memory_format=last)
    weight_CIJL = torch.randn(channels, inputs, 3, 3)
    channel_K = torch.arange(0, channels, int(1 / KEPT))
    image = geometry.output_size(size, size)
    error_BKHW = torch.randn(INSTANCES, len(channel_K), *image).contiguous(memory_format=last)
    layer, backward = (x_BIHW, weight_CIJL, geometry), (x_BIHW, weight_CIJL, channel_K, geometry)
    exchanged = direct_convolution.exchanged_gradient_pays(error_BKHW, *layer)
    pays = direct_convolution.pays(*layer)
    gradient_pays = direct_convolution.gradient_pays(*layer) or exchanged
    whole = inputs >= direct_convolution.VECTOR or exchanged
    return [
        (lambda: convolve(x_BIHW, weight_CIJL, None, geometry), pays, True),
        (lambda: propagate(error_BKHW, *backward), pays, True),
        (lambda: weight_gradient(error_BKHW, *backward), gradient_pays, whole),
    ]


def seconds(product: Callable[[], object], ours: bool) -> float:
    rule = {
        "pays": lambda *layer: ours,
        "gradient_pays": lambda x_BIHW, *layer: ours and x_BIHW.shape[1] >= direct_convolution.VECTOR,
    }
    with patch.multiple(direct_convolution, **rule):
        began_s = time.perf_counter()
        product()
        return time.perf_counter() - began_s


def row(layer: tuple[int, int, int, int], turns: int) -> str:
    """One line of the table."""
    cells = []
    for product, pays, can in products_of(*layer):
        times_s = [[seconds(product, ours and can) for ours in (False, True)] for _ in range(turns + 2)][2:]
        theirs_ms = 1000 * median(theirs for theirs, _ in times_s)
        ratio = median(theirs / ours for theirs, ours in times_s)
        cells.append(f"{theirs_ms:.2f} | {f'{ratio:.2f}' if can else '-'}{'*' if pays else ''}")
    inputs, channels, size, stride = layer
    return f"| {inputs} to {channels} | {size} | {stride} | {' | '.join(cells)} |"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.direct_convolution")
    parser.add_argument("--turns", type=int, default=31)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    heads = " | ".join(f"{product}: PyTorch's ms | PyTorch's / ours" for product in PRODUCTS)
    lines = [
        "# Products over few channels: `python -m benchmarks.direct_convolution`",
        "",
        f"{machine()}; one thread, batch {INSTANCES}, "
        f"{KEPT:g} of the maps kept, {options.turns} turns; *: fedge takes ours.",
        "",
        f"| channels | size | stride | {heads} |",
        "| --- " * 9 + "|",
    ]
    print("\n".join(lines))
    with torch.no_grad():
        for layer in LAYERS:
            lines.append(row(layer, options.turns))
            print(lines[-1], flush=True)
    options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
