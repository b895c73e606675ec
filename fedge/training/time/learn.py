"""From timed steps to a fingerprint: measure, fit, and ask how good it is on what it was not fitted to.

How good: the same timings once more, with a part held out: every other level, one network after the other, the middle
batch. The noise floor beside it: how far the first and the last round's medians of the same step lie apart.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import torch
from torch import nn

from fedge.catalog.fingerprint import FORMAT
from fedge.environment import host_environment
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.time.predictor import PREDICTORS
from fedge.training.time.sample import NETWORKS, Cell, cut_network
from fedge.training.time.shape import StepShape, step_shape
from fedge.training.time.timing import ROUNDS, Step, Timed, time_steps, typical_reference

PROBE_WEIGHT = 10.0
"""Of a probe of one's own network beside a step of the sample's."""


@dataclass(frozen=True)
class Row:
    """A step that was timed. noise: how far two rounds differ; weight: in the fit."""

    cell: Cell
    shape: StepShape
    seconds: float
    noise: float
    weight: float = 1.0


def measured(
    cells: Sequence[Cell],
    *,
    rounds: int = ROUNDS,
    limit_s: float = math.inf,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> list[Row]:
    """The sample's networks, cut and timed; those of one level are one network. limit_s: as in `time_steps`."""
    models: dict[tuple[str, float, int], nn.Module] = {}
    steps = []
    for cell in cells:
        key = cell.network, cell.level, cell.seed
        if key not in models:
            models[key] = cut_network(cell.network, cell.level, NETWORKS[cell.network], cell.seed)
        steps.append(step_of(models[key], NETWORKS[cell.network], cell))
    return rows_of(cells, steps, time_steps(steps, rounds=rounds, limit_s=limit_s, told=told))


def step_of(model: nn.Module, input_shape: tuple[int, ...], cell: Cell, **about: Any) -> Step:
    """A cell's step, of a network cut already. about: classes, task."""
    methods = {"error_maps": ErrorMapPruner(model, keep=cell.keep)} if cell.keep < 1 else {}
    return Step(model, input_shape, cell.batch, methods=methods, **about)


def rows_of(
    cells: Sequence[Cell], steps: Sequence[Step], timed: Sequence[Timed], weight: float = 1.0
) -> list[Row]:
    """Shapes and seconds together."""
    typical = typical_reference(timed)
    return [
        Row(
            cell,
            step_shape(step.model, step.input_shape, cell.batch, keep=cell.keep),
            each.seconds(typical),
            each.noise(typical),
            weight,
        )
        for cell, step, each in zip(cells, steps, timed, strict=True)
    ]


def fingerprint_text(rows: Sequence[Row], predictor: str, *, took_s: float) -> str:
    """The file of a machine on which `rows` were timed."""
    coefficients = PREDICTORS[predictor].fit(*_columns(rows)).table()
    table = {
        "format": FORMAT,
        "machine": this_machine(),
        "predictor": predictor,
        "coefficients": coefficients,
        "train_gflops": _rounded(median(2 * row.shape.macs / row.seconds for row in rows) / 1e9),
        "memory_gbs": _rounded(copy_bandwidth_gbs()),
        "errors": how_good(rows),
        "measured": [
            [row.cell.network, row.cell.level, row.cell.batch, row.cell.keep, _rounded(row.seconds)]
            for row in rows
        ],
        "took_s": round(took_s, 1),
    }
    return json.dumps(table, separators=(",", ":")).replace(',"', ',\n"') + "\n"


def this_machine() -> dict[str, Any]:
    """What a fingerprint says of where it was made, for one thread."""
    here = host_environment()
    return {key: here[key] for key in ("processor", "vector_instructions", "torch")} | {"threads": 1}


def how_good(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean relative errors, 0..1, by predictor and by what was held out; the noise floor beside them."""
    sample = [row for row in rows if row.cell.network in NETWORKS]
    levels, batches = (sorted({getattr(row.cell, key) for row in sample}) for key in ("level", "batch"))
    parts: dict[str, list[Callable[[Row], bool]]] = {
        "levels": [lambda row: row.cell.level in levels[1::2]],
        "batch": [lambda row: row.cell.batch == batches[len(batches) // 2]],
        "network": [lambda row, name=name: row.cell.network == name for name in NETWORKS],  # type: ignore[misc]
    }
    found: dict[str, Any] = {
        kind: {part: _rounded(_held_out(kind, sample, tests)) for part, tests in parts.items()}
        for kind in PREDICTORS
    }
    return found | {"noise": _rounded(fmean(row.noise for row in sample))}


def errors(predicted: Sequence[float], rows: Sequence[Row]) -> list[float]:
    """|predicted / measured - 1|, row by row."""
    return [abs(value / row.seconds - 1) for value, row in zip(predicted, rows, strict=True)]


def _held_out(kind: str, rows: Sequence[Row], tests: Sequence[Callable[[Row], bool]]) -> float:
    off: list[float] = []
    for is_out in tests:
        out = [row for row in rows if is_out(row)]
        fitted = PREDICTORS[kind].fit(*_columns([row for row in rows if not is_out(row)]))
        off += errors([fitted.step_s(row.shape) for row in out], out)
    return fmean(off)


def _columns(rows: Sequence[Row]) -> tuple[list[StepShape], list[float], list[float]]:
    return [row.shape for row in rows], [row.seconds for row in rows], [row.weight for row in rows]


def copy_bandwidth_gbs() -> float:
    """Of a long copy, read and written: the best of five."""
    source, target = torch.ones(16 * 2**20), torch.empty(16 * 2**20)
    target.copy_(source)  # its pages are mapped now
    taken = []
    for _ in range(5):
        begun = time.process_time()
        target.copy_(source)
        taken.append(time.process_time() - begun)
    return 2 * source.nbytes / min(taken) / 1e9


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
