"""How well a fingerprint foresees what a training step takes, on the machine that runs this.

The fingerprint's own sample is timed and, interleaved with it, steps that it is not fitted to: other levels, other
batches, networks never timed, pruned error maps, a filter's smaller batch. Each is predicted by fedge's predictors and
by what would do without them, and held against its median. So are the twenty levels of a search, whose answer by
prediction stands beside the one by timing all of them. Processor time, one thread; every step in each of
`--rounds` rounds, in the speed of a reference step beside it (fedge/training/time/timing.py).

`--refit` predicts anew from the times that are in the results already, of `--rounds` rounds.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.cost.fingerprint_page import page
from benchmarks.measure.benchmark import Benchmark, Options
from benchmarks.measure.networks import SHAPES, network
from benchmarks.measure.results import Results, Row
from fedge.errors import RunError
from fedge.training.instance_filter.filters import make_filter
from fedge.training.pruning.level_search import LEVELS as SEARCHED
from fedge.training.time.features import Features
from fedge.training.time.learn import PROBE_WEIGHT, step_of
from fedge.training.time.predictor import Trees, Width, relative_nnls
from fedge.training.time.sample import BATCHES, NETWORKS, Cell, cells, cut_network
from fedge.training.time.shape import StepShape, step_shape
from fedge.training.time.timing import ROUNDS, Step, Timed, time_steps, typical_reference

UNSEEN = ("mobilenet_v2", "squeezenet", "alexnet", "resnet8")
UNSEEN_LEVELS, UNSEEN_BATCHES = (0.0, 0.3, 0.5, 0.7), (8, 32, 64)
PROBES = ((0.0, 8), (0.0, 64), (0.3, 32), (0.5, 8), (0.7, 32), (0.7, 64))
HELD_OUT_LEVELS = (0.15, 0.4, 0.6, 0.8)
HELD_OUT_BATCHES = (16, 64)
KEEPS = (0.25, 0.5)
FILTER_KEEP, FILTER_WARM_UP = 0.4, 40
SEARCH = ("lenet", "resnet20", "har_cnn", "squeezenet", "resnet8")
OTHER_SEED = 1  # of widths
SMOKE_LEVELS = (0.0, 0.15, 0.5)


@dataclass(frozen=True)
class Asked:
    """A step that is timed: for which question, and the share of its batch that a filter keeps."""

    question: str
    cell: Cell
    filtered: float = 1.0

    @property
    def key(self) -> tuple[object, ...]:
        cell = self.cell
        return self.question, cell.network, cell.level, cell.batch, cell.keep, self.filtered


@dataclass(frozen=True)
class Found:
    """A step's shape and times: the median and its noise, one single step behind two, and without the reference's
    speed the median and noise again."""

    asked: Asked
    shape: StepShape
    seconds: float
    noise: float
    once_s: float
    raw_s: float
    raw_noise: float
    rounds: int


def asked(networks: Sequence[str], unseen: Sequence[str], batches: Sequence[int]) -> Iterator[Asked]:
    """All steps but those of the search."""
    for cell in cells():
        if cell.network in networks and cell.batch in batches:
            yield Asked("sample", cell)
    others = [batch for batch in HELD_OUT_BATCHES if batch < max(batches)]
    for name in networks:
        for level, batch in product(HELD_OUT_LEVELS, batches):
            yield Asked("levels", Cell(name, level, batch, seed=OTHER_SEED))
        for batch, level in product(others, (0.0, 0.5)):
            yield Asked("batch", Cell(name, level, batch))
        for keep in KEEPS:
            yield from (Asked("keep", Cell(name, level, 32, keep)) for level in (0.3, 0.7))
        yield from (Asked("filter", Cell(name, level, 32), FILTER_KEEP) for level in (0.0, 0.5))
    for name in unseen:
        for level in UNSEEN_LEVELS:
            yield from (Asked("unseen", Cell(name, level, batch)) for batch in UNSEEN_BATCHES)


def searched(networks: Sequence[str]) -> Iterator[Asked]:
    """All levels of the search's networks, cut as a device cuts, on batches of 32."""
    for name in networks:
        for level in (0.0, *SEARCHED):
            yield Asked("search", Cell(name, level, 32))


def run(options: Options, results: Results) -> None:
    """Time, predict, hold one against the other."""
    torch.set_num_threads(1)
    batches = BATCHES[:2] if options.smoke else BATCHES
    networks = [name for name in options.models if name in NETWORKS]
    unseen = [name for name in options.models if name in UNSEEN]
    if not networks:
        raise RunError(
            f"--models has none of the fingerprint's own networks: add one of {', '.join(NETWORKS)}"
        )
    wanted = [
        *asked(networks, unseen, batches),
        *searched([name for name in options.models if name in SEARCH]),
    ]
    if options.smoke:
        wanted = [each for each in wanted if each.cell.level in SMOKE_LEVELS]
    known = {tuple(row["key"]): row for row in results.rows if "key" in row} if options.refit else {}
    steps = Steps()
    found = _again(wanted, steps, known, options.rounds) if options.refit else _timed(wanted, steps, options)
    load = next(iter(known.values()))["load"] if known else os.getloadavg()[1]
    for row in _predicted(found):
        results.add(row | {"rounds": min(each.rounds for each in found), "load": load})


class Steps:
    """Makes steps; one network for all cells of one level."""

    def __init__(self) -> None:
        self._models: dict[object, nn.Module] = {}

    def model(self, asked: Asked) -> nn.Module:
        cell = asked.cell
        search = asked.question == "search"
        key = search, cell.network, cell.level, cell.seed
        if key not in self._models:
            self._models[key] = (
                network(cell.network, cell.level)
                if search
                else cut_network(cell.network, cell.level, SHAPES[cell.network], cell.seed)
            )
        return self._models[key]

    def step(self, asked: Asked) -> Step:
        shape = SHAPES[asked.cell.network]
        step = step_of(self.model(asked), shape, asked.cell)
        if asked.filtered < 1:  # batches differ in size, and the first of each size is slow
            step = replace(step, warm_up=FILTER_WARM_UP)
            channels, *size = shape
            step.methods["instance_filter"] = make_filter(
                "random", asked.filtered, in_channels=channels, image_size=tuple(size), seed=0
            )
        return step

    def shape(self, asked: Asked) -> StepShape:
        cell = asked.cell
        return step_shape(
            self.model(asked), SHAPES[cell.network], asked.filtered * cell.batch, keep=cell.keep
        )


def _timed(wanted: Sequence[Asked], steps: Steps, options: Options) -> list[Found]:
    made = [steps.step(each) for each in wanted]
    timed = time_steps(made, rounds=options.rounds, limit_s=60 * options.minutes)
    typical = typical_reference(timed)
    return [
        Found(
            each,
            steps.shape(each),
            of.seconds(typical),
            of.noise(typical),
            _once(of),
            of.seconds(None),
            of.noise(None),
            len(of.times),
        )
        for each, of in zip(wanted, timed, strict=True)
    ]


def _once(timed: Timed) -> float:
    """A single step as it came, in the first round, behind two."""
    return timed.times[0][min(1, len(timed.times[0]) - 1)]


def _again(wanted: Sequence[Asked], steps: Steps, known: dict[Any, Row], rounds: int) -> list[Found]:
    return [
        Found(
            each,
            steps.shape(each),
            row["measured_s"],
            row["noise"],
            row["once_s"],
            row["raw_s"],
            row["raw_noise"],
            rounds,
        )
        for each in wanted
        if (row := known.get(each.key)) is not None
    ]


Predict = Callable[[StepShape], float]


def _two(step: StepShape) -> Features:
    """The clock's terms: multiply-accumulates and map elements."""
    return np.array([step.macs, step.batch * sum(layer.maps for layer in step.layers)])


def _five(step: StepShape) -> Features:
    return np.array([1.0, len(step.layers), *_two(step), step.parameters])


def _linear(terms: Callable[[StepShape], Features], rows: Sequence[Found], own: Sequence[Found]) -> Predict:
    everything = [*rows, *own]
    counts = [terms(row.shape) for row in everything]
    numbers = relative_nnls(counts, [row.seconds for row in everything], _weights(rows, own))
    return lambda step: float(np.dot(terms(step), numbers))


def _weights(rows: Sequence[Found], own: Sequence[Found]) -> list[float]:
    return [1.0] * len(rows) + [PROBE_WEIGHT] * len(own)


def predictors(rows: Sequence[Found], own: Sequence[Found] = ()) -> dict[str, Predict]:
    """By name, fitted to the sample and to probes of one's own."""
    everything = [*rows, *own]
    fitted = [row.shape for row in everything], [row.seconds for row in everything], _weights(rows, own)
    return {
        "width": Width.fit(*fitted).step_s,
        "trees": Trees.fit(*fitted).step_s,
        "two terms": _linear(_two, rows, own),
        "five terms": _linear(_five, rows, own),
    }


def _nearest(rows: Sequence[Found], asked: Found) -> float | None:
    """The time of the nearest profiled step of the network, scaled by MACs."""
    same = [
        row for row in rows if row.asked.cell.network == asked.asked.cell.network and row.asked.cell.keep == 1
    ]
    if not same:
        return None
    wanted = asked.shape
    near = min(
        same,
        key=lambda row: (
            abs(np.log(row.shape.batch / wanted.batch)),
            abs(row.asked.cell.level - asked.asked.cell.level),
        ),
    )
    return near.seconds * wanted.macs / near.shape.macs


def _predicted(found: Sequence[Found]) -> Iterator[Row]:
    """A row per step, the sample's left out of itself: it is fitted to."""
    sample = [row for row in found if row.asked.question == "sample"]
    known = predictors(sample)
    for row in found:
        yield _row(row, known, sample)
    for name in UNSEEN:
        own = [row for row in found if row.asked.question == "unseen" and row.asked.cell.network == name]
        probes = [row for row in own if (row.asked.cell.level, row.asked.cell.batch) in PROBES]
        if probes and len(probes) < len(own):
            probed = predictors(sample, probes)
            for row in own:
                if row not in probes:
                    yield _row(row, probed, [*sample, *probes]) | {"question": "unseen, 6 probes"}


def _row(row: Found, known: dict[str, Predict], timed: Sequence[Found]) -> Row:
    cell, measured_s = row.asked.cell, row.seconds
    guesses: dict[str, float | None] = {name: predict(row.shape) for name, predict in known.items()}
    guesses |= {"nearest level": _nearest(timed, row), "one timed step": row.once_s}
    return {
        "key": list(row.asked.key),
        "question": row.asked.question,
        "model": cell.network,
        "level": cell.level,
        "batch_size": cell.batch,
        "keep": cell.keep,
        "filtered": row.asked.filtered,
        "measured_s": measured_s,
        "noise": row.noise,
        "once_s": row.once_s,
        "raw_s": row.raw_s,
        "raw_noise": row.raw_noise,
        "off": {name: None if guess is None else guess / measured_s - 1 for name, guess in guesses.items()},
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    everything = [*NETWORKS, *UNSEEN]
    parser.add_argument("--models", nargs="+", default=everything, choices=everything)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="over all steps")
    parser.add_argument("--minutes", type=float, default=30.0, help="no round's step is begun later")
    parser.add_argument("--refit", action="store_true", help="predict anew from the results' times")


BENCHMARK = Benchmark(
    name="fingerprint",
    purpose="What a fingerprint foresees",
    takes="ten minutes of one core, best of a machine that does nothing else",
    key=("question", "model", "level", "batch_size", "keep", "filtered", "machine"),
    run=run,
    page=page,
    options=add_options,
    smoke="--models har_cnn lenet --rounds 1",
)
