"""Divide rows that were recorded one after another, so that no row shares a sample with a row of another part.

Windows of one signal overlap: cut at random, half of a test window's samples have been trained on. So parts are made
of stretches, per owner in the order of recording, before any row goes to a client:

    factory     whole runs, at random over all owners
    by "run"    an owner's other runs, each whole: first one of every class to training, then by the fractions
    by "time"   an owner's other rows: the first train, then validation, the last test
    gap         where two parts meet, the earlier one's last rows are dropped, as many as share samples

A run is what one owner recorded under one class, or one set of labels, without a break. Numbers have neither: there a
run is a tenth of an owner's rows, in order. Legend: N rows of the data set, R runs.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from fedge.data.dataset import DataSet
from fedge.data.dividing.parts import DividedRows
from fedge.errors import UserError
from fedge.seeding import derive_seed

GAP, FACTORY, TRAIN, VALIDATION, TEST = -1, 0, 1, 2, 3
_TENTHS = 10
_OTHER = {"data.split.by": "'row'", "data.stream.order": "'iid' or 'runs'"}  # what needs no order
_PREFERRED = (TRAIN, TEST, VALIDATION)  # where two parts lack equally much


def assign_parts(
    dataset: DataSet,
    by: Literal["run", "time"],
    factory_fraction: float,
    fractions: Sequence[float],
    seed: int,
    *,
    gap: int | None = None,
    factory_N: np.ndarray | None = None,
) -> np.ndarray:
    """What each row is for [N]: GAP (nobody's), FACTORY, TRAIN, VALIDATION or TEST.

    `fractions`: of training, validation and test, for each owner and but for whole runs. An owner's runs are cut by
    (seed, owner) alone. `gap`: rows dropped where two parts meet; None: as many as are known to share samples.
    `factory_N`: which rows are the factory's, where that is settled. UserError: the rows have no order, or are not
    in it.
    """
    require_order(dataset, by)
    order_N, owner_N = dataset.in_order()
    run_N = _runs(owner_N, _run_labels(dataset, order_N, owner_N))
    class_N = dataset.y[order_N] if dataset.task == "classes" else np.zeros(len(dataset), np.int64)
    if factory_N is None:
        part_N = _factory_runs(run_N, factory_fraction, derive_seed(seed, "factory split"))
    else:
        part_N = np.where(factory_N[order_N], FACTORY, TRAIN).astype(np.int8)
    cut = _cut_by_run if by == "run" else _cut_by_time
    for owner in np.unique(owner_N):
        own = np.flatnonzero((owner_N == owner) & (part_N != FACTORY))
        generator = np.random.default_rng(derive_seed(seed, int(owner), "runs"))
        part_N[own] = cut(run_N[own], class_N[own], fractions, generator)
    _drop_gap(part_N, owner_N, dataset.overlap if gap is None else gap)
    result_N = np.empty_like(part_N)
    result_N[order_N] = part_N
    return result_N


def require_order(dataset: DataSet, by: str, key: str = "data.split.by") -> None:
    """UserError unless the rows of each owner are in the order of recording, as far as their samples tell.

    Where a row begins with the samples that another ends with, it must be that one's next. An order that came with the
    data is taken at its word.
    """
    if not dataset.ordered:
        raise UserError(
            f"{key} is '{by}', and the rows of '{dataset.name}' are in no order of recording: take {_OTHER[key]}"
        )
    if dataset.stride is None or not dataset.overlap or dataset.order is not None:
        return
    follower = {head: row for row, head in _ends(dataset.x[..., : -dataset.stride])}
    order_N, _ = dataset.in_order()
    place_N = np.empty_like(order_N)
    place_N[order_N] = np.arange(len(order_N))
    for row, tail in _ends(dataset.x[..., dataset.stride :]):
        other = follower.get(tail)
        if other is not None and place_N[other] != place_N[row] + 1:
            raise UserError(
                f"{key} is '{by}', and '{dataset.name}' is not in the order of recording: row {other} goes on where "
                f"row {row} ends, and is not the next of its owner; put the rows in order, or take {_OTHER[key]}"
            )


def in_recorded_order(dataset: DataSet, division: DividedRows) -> DividedRows:
    """The same with each client's training rows in the order of recording. UserError where the rows are in none."""
    require_order(dataset, "recorded", "data.stream.order")
    order_N, _ = dataset.in_order()
    place_N = np.empty_like(order_N)
    place_N[order_N] = np.arange(len(order_N))
    clients = tuple(replace(own, train=own.train[np.argsort(place_N[own.train])]) for own in division.clients)
    return replace(division, clients=clients)


def _ends(end_NCHT: np.ndarray) -> list[tuple[int, bytes]]:
    """(row, its bytes) of the ends that say something: a constant signal is like any other."""
    flat_NCHT = end_NCHT.min(axis=-1) == end_NCHT.max(axis=-1)
    telling_N = ~flat_NCHT.all(axis=(1, 2))
    return [(int(row), end_NCHT[row].tobytes()) for row in np.flatnonzero(telling_N)]


def _run_labels(dataset: DataSet, order_N: np.ndarray, owner_N: np.ndarray) -> np.ndarray:
    """What a run has one of [N], for rows that are in order: its class, its set of labels, its tenth of the owner's."""
    label_N: np.ndarray = dataset.y[order_N]
    if dataset.task == "classes":
        return label_N
    if dataset.task == "labels":
        set_N: np.ndarray = np.unique(label_N, axis=0, return_inverse=True)[1]
        return set_N.reshape(-1)
    tenth_N = np.empty(len(order_N), np.int64)
    for owner in np.unique(owner_N):
        own = np.flatnonzero(owner_N == owner)
        tenth_N[own] = np.arange(len(own)) * _TENTHS // len(own)
    return tenth_N


def _runs(owner_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    """The number of its run for each row [N], for rows that are in order."""
    begins_N = np.r_[False, (owner_N[1:] != owner_N[:-1]) | (y_N[1:] != y_N[:-1])]
    return np.cumsum(begins_N)


def _factory_runs(run_N: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """FACTORY for the rows of runs drawn at random until they are nearest to `fraction` of all; TRAIN for the rest."""
    size_R = np.bincount(run_N)
    drawn_R = np.random.default_rng(seed).permutation(len(size_R))
    ends_R = np.cumsum(size_R[drawn_R])
    count = int(np.abs(ends_R - fraction * len(run_N)).argmin()) + 1
    chosen_R = np.zeros(len(size_R), bool)
    chosen_R[drawn_R[:count]] = True
    return np.where(chosen_R[run_N], FACTORY, TRAIN).astype(np.int8)


def _cut_by_run(
    run_n: np.ndarray, y_n: np.ndarray, fractions: Sequence[float], generator: np.random.Generator
) -> np.ndarray:
    """The part of each of one owner's rows [n]: class by class, each run to the part that lacks most rows by then."""
    share = dict(zip((TRAIN, VALIDATION, TEST), fractions, strict=True))
    have = dict.fromkeys(share, 0)
    part_n = np.full(len(run_n), TRAIN, np.int8)
    for label in generator.permutation(np.unique(y_n)):
        for place, run in enumerate(generator.permutation(np.unique(run_n[y_n == label]))):
            rows = run_n == run
            seen = sum(have.values()) + int(rows.sum())
            part = TRAIN if place == 0 else max(_PREFERRED, key=lambda part: share[part] * seen - have[part])
            have[part] += int(rows.sum())
            part_n[rows] = part
    return part_n


def _cut_by_time(
    run_n: np.ndarray, y_n: np.ndarray, fractions: Sequence[float], generator: np.random.Generator
) -> np.ndarray:
    """The part of each of one owner's rows [n], which are in order; ends are rounded, training gets at least one."""
    train_end = max(1, round(fractions[0] * len(run_n)))
    validation_end = max(train_end, round((fractions[0] + fractions[1]) * len(run_n)))
    part_n = np.full(len(run_n), TEST, np.int8)
    part_n[:validation_end] = VALIDATION
    part_n[:train_end] = TRAIN
    return part_n


def _drop_gap(part_N: np.ndarray, owner_N: np.ndarray, overlap: int) -> None:
    """Drop a row if one of its owner's next `overlap` rows is of another part."""
    whole_N = part_N.copy()
    for ahead in range(1, min(overlap, len(part_N) - 1) + 1):
        differs = (whole_N[ahead:] != whole_N[:-ahead]) & (owner_N[ahead:] == owner_N[:-ahead])
        part_N[:-ahead][differs] = GAP
