"""Windows of one signal: none of a training row shares a sample with one of a test row."""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.data.dataset import DataSet
from fedge.data.datasets import load_dataset
from fedge.data.dividing.recorded import FACTORY, GAP, TEST, TRAIN, VALIDATION, assign_parts
from fedge.data.partition import divide
from fedge.errors import UserError

FRACTIONS = (0.6, 0.2, 0.2)
CLASSES, CHANNELS, WIDTH = 4, 2, 12


def signals(
    people: int = 5, *, stride: int = 6, runs: int = 24, seed: int = 0, mixed: bool = False
) -> DataSet:
    """Windows of `WIDTH` samples, one every `stride`, cut out of one signal per person; labels in runs of 3 to 9.

    Even windows across a change of label share samples here, which is the harder case. `mixed`: people take turns
    in the order of the rows.
    """
    rng = np.random.default_rng(seed)
    x, y, subject = [], [], []
    for person in range(1, people + 1):
        label_W = np.repeat(rng.integers(0, CLASSES, runs), rng.integers(3, 10, runs))
        signal = rng.standard_normal((CHANNELS, stride * len(label_W) + WIDTH)).astype(np.float32)
        x += [signal[:, None, stride * w : stride * w + WIDTH] for w in range(len(label_W))]
        y += label_W.tolist()
        subject += [person] * len(label_W)
    order = np.arange(len(y))
    if mixed:  # everybody's first window, everybody's second, ...
        nth = np.concatenate([np.arange(n) for n in np.bincount(subject)[1:]])
        order = np.lexsort((np.array(subject), nth))
    arrays = (np.stack(x)[order], np.array(y)[order])
    return DataSet(
        "signals", *arrays, CLASSES, len(y), (0.0,) * CHANNELS, (1.0,) * CHANNELS,
        subject=np.array(subject)[order], ordered=True, stride=stride,
    )  # fmt: skip


def choice(by: str, kind: str = "natural", factory: float = 0.15, **parameters: object) -> SimpleNamespace:
    split = SimpleNamespace(by=by, train=0.6, validation=0.2, test=0.2)
    partition = SimpleNamespace(kind=kind, **parameters)
    return SimpleNamespace(factory_fraction=factory, partition=partition, split=split)


def samples(dataset: DataSet, rows: np.ndarray) -> set[bytes]:
    """Each sample of the rows: what the channels measured at one time, which no other time repeats."""
    return {dataset.x[row, :, 0, time].tobytes() for row in rows for time in range(dataset.x.shape[-1])}


@pytest.mark.parametrize("by", ["run", "time"])
@pytest.mark.parametrize("stride", [12, 6, 4, 5])
@pytest.mark.parametrize("mixed", [False, True])
def test_no_sample_is_on_both_sides(by, stride, mixed):
    """Half of a test window would have been trained on, by the client or by the factory, and figures would flatter."""
    dataset = signals(stride=stride, mixed=mixed)
    divided = divide(dataset, choice(by), clients=5, seed=3)
    of_clients = zip(*(rows.parts for rows in divided.clients), strict=True)
    parts = [divided.factory.train, *map(np.concatenate, of_clients)]
    assert min(map(len, parts)) > 0
    assert sum(map(len, parts)) + divided.gap == len(dataset) == len(set(np.concatenate(parts))) + divided.gap
    of_part = [samples(dataset, rows) for rows in parts]
    for one in range(4):
        for other in range(one):
            assert not of_part[one] & of_part[other]
    assert (divided.gap == 0) == (stride == 12)  # windows that do not overlap cost no row


def test_a_random_cut_does_share_samples():
    """The test above would pass whatever is done: its windows would not overlap."""
    dataset = signals()
    rows = divide(dataset, choice("row"), clients=5, seed=3).clients[0]
    assert samples(dataset, rows.train) & samples(dataset, rows.test)


@pytest.mark.parametrize("kind", [("iid", {}), ("dirichlet", {"alpha": 1.0}), ("shards", {"per_client": 2})])
def test_rows_of_one_person_may_go_to_many_clients(kind):
    """A client's test row would overlap another client's training row."""
    dataset = signals(people=8)
    divided = divide(dataset, choice("run", kind[0], **kind[1]), clients=4, seed=1)
    trained = np.concatenate([divided.factory.train, *(rows.train for rows in divided.clients)])
    tested = np.concatenate([rows.test for rows in divided.clients])
    assert len(tested) and not samples(dataset, trained) & samples(dataset, tested)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), by=st.sampled_from(["run", "time"]), factory=st.floats(0.02, 0.5))
def test_no_neighbour_by_index_is_of_another_part(seed, by, factory):
    """As above, told by the row numbers alone."""
    dataset = signals(people=3, stride=4, seed=seed)
    part_N = assign_parts(dataset, by, factory, FRACTIONS, seed)
    for ahead in range(1, dataset.overlap + 1):
        same = dataset.subject[ahead:] == dataset.subject[:-ahead]
        kept = (part_N[ahead:] != GAP) & (part_N[:-ahead] != GAP)
        assert (part_N[ahead:] == part_N[:-ahead])[same & kept].all()


def test_runs_stay_whole_and_every_class_is_trained():
    """A run's end would be tested on after its beginning was trained on; or a client would never see a class."""
    dataset = signals(people=6)
    part_N = assign_parts(dataset, "run", 0.1, FRACTIONS, 5)
    begins = np.r_[True, (np.diff(dataset.y) != 0) | (np.diff(dataset.subject) != 0)]
    for run in np.split(part_N, np.flatnonzero(begins)[1:]):
        assert len(set(run) - {GAP}) <= 1
    for person in range(1, 7):
        own = (dataset.subject == person) & (part_N >= TRAIN)
        assert set(dataset.y[own & (part_N == TRAIN)]) == set(dataset.y[own])


def test_the_fractions_are_kept_but_for_whole_runs():
    """Sixty per cent asked for training would be something else for a person."""
    dataset = signals(people=6, runs=60)
    part_N = assign_parts(dataset, "run", 0.1, FRACTIONS, 5)
    for person in range(1, 7):
        own = part_N[(dataset.subject == person) & (part_N >= TRAIN)]
        for part, fraction in zip((TRAIN, VALIDATION, TEST), FRACTIONS, strict=True):
            assert abs((own == part).mean() - fraction) < 0.06
    assert abs((part_N == FACTORY).mean() - 0.1) < 0.03
    assert not (assign_parts(dataset, "run", 0.1, (0.8, 0.0, 0.2), 5) == VALIDATION).any()


def test_by_time_the_past_trains_and_the_future_tests():
    """A model would be tested on what happened before it was trained."""
    dataset = signals(people=4)
    part_N = assign_parts(dataset, "time", 0.1, FRACTIONS, 5)
    for person in range(1, 5):
        own = part_N[dataset.subject == person]
        train, validation, test = (np.flatnonzero(own == part) for part in (TRAIN, VALIDATION, TEST))
        assert train.max() < validation.min() and validation.max() < test.min()


def test_the_seed_decides_and_nothing_else():
    """A resumed run would hand the devices other data."""
    one, two, other = (assign_parts(signals(), "run", 0.15, FRACTIONS, seed) for seed in (3, 3, 4))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_a_stream_of_nobody_in_particular_is_one_owner():
    """Data in order but without owners could not be cut."""
    dataset = dataclasses.replace(signals(people=1), subject=None)
    divided = divide(dataset, choice("time", "iid"), clients=3, seed=0)
    trained = np.concatenate([divided.factory.train, *(rows.train for rows in divided.clients)])
    assert not samples(dataset, trained) & samples(
        dataset, np.concatenate([rows.test for rows in divided.clients])
    )


def test_rows_that_were_shuffled_are_found_out():
    """The gap goes by the order of rows: in another order it would keep nothing apart, without a word."""
    dataset = signals()
    order = np.random.default_rng(0).permutation(len(dataset))
    mixed = dataclasses.replace(
        dataset, x=dataset.x[order], y=dataset.y[order], subject=dataset.subject[order]
    )
    for by in ("run", "time"):
        with pytest.raises(UserError, match="is not in the order of recording: row"):
            assign_parts(mixed, by, 0.1, FRACTIONS, 0)
    with pytest.raises(UserError, match="in no order of recording: take 'row'"):
        assign_parts(dataclasses.replace(dataset, ordered=False), "run", 0.1, FRACTIONS, 0)


def test_silence_is_like_silence_and_says_nothing_of_the_order():
    """Sound data with a flat signal in many windows would be called shuffled."""
    dataset = signals()
    x = dataset.x.copy()
    x[::3] = 0.0
    assign_parts(dataclasses.replace(dataset, x=x), "run", 0.1, FRACTIONS, 0)


def test_a_client_left_without_a_training_row_is_refused():
    """It would train on nothing and report a perfect nothing."""
    dataset = signals(people=1, runs=8)
    with pytest.raises(UserError, match=r"leaves client . of .* without a training row"):
        divide(dataset, choice("time", "shards", per_client=1), clients=len(dataset) // 3, seed=0)


@pytest.mark.parametrize("by", ["run", "time"])
def test_the_real_windows_share_no_sample_across_parts(by):
    """README's figures for har-subjects would be inflated again. By content: no half of a window is in two parts."""
    if not (Path(os.environ.get("FEDGE_DATA", "-")) / "uci_har.npz").exists():
        pytest.skip("FEDGE_DATA holds no uci_har.npz")
    dataset = load_dataset("har", os.environ["FEDGE_DATA"])
    divided = divide(dataset, choice(by, factory=0.1), clients=30, seed=7)
    part_N = np.full(len(dataset), GAP)
    part_N[divided.factory.train] = FACTORY
    for rows in divided.clients:
        for part, own in zip((TRAIN, VALIDATION, TEST), rows.parts, strict=True):
            part_N[own] = part
        assert min(map(len, rows.parts)) > 20
        assert by == "time" or len(set(dataset.y[rows.train])) == 6
    whose: dict[bytes, int] = {}
    shared = 0
    for row in np.flatnonzero(part_N != GAP):
        for half in (dataset.x[row, ..., :64].tobytes(), dataset.x[row, ..., 64:].tobytes()):
            shared += half in whose
            assert whose.setdefault(half, part_N[row]) == part_N[row]
    assert shared > 8000  # the halves do repeat, within a part


def as_task(dataset: DataSet, task: str) -> DataSet:
    """The same windows with numbers that change from row to row, or with the bits of the class as labels."""
    if task == "numbers":
        return dataclasses.replace(dataset, y=dataset.x[:, :1, 0, -1], num_classes=1, task=task)
    bits = (dataset.y[:, None] >> np.arange(2) & 1).astype(np.uint8)
    return dataclasses.replace(dataset, y=bits, num_classes=2, task=task)


@pytest.mark.parametrize("task", ["labels", "numbers"])
@pytest.mark.parametrize("by", ["row", "run", "time"])
@pytest.mark.parametrize("kind", ["natural", "iid"])
def test_labels_and_numbers_divide_too(task: str, by: str, kind: str) -> None:
    """Breaks if a target that is no class leaves parts empty, shares samples between them, or cannot be divided."""
    dataset = as_task(signals(mixed=True), task)
    divided = divide(dataset, choice(by, kind), clients=4, seed=3)
    fractions = np.mean([[len(part) for part in own.parts] for own in divided.clients], 0)
    assert np.allclose(fractions / fractions.sum(), FRACTIONS, atol=0.12)
    assert 0.08 < len(divided.factory.train) / len(dataset) < 0.25
    if by != "row":
        for own in divided.clients:
            assert not samples(dataset, own.train) & samples(dataset, own.test)
            assert not samples(dataset, divided.factory.train) & samples(dataset, own.test)


@pytest.mark.parametrize("task", ["labels", "numbers"])
@pytest.mark.parametrize("kind", ["dirichlet", "pathological", "shards", "subsets"])
def test_a_division_by_class_wants_classes(task: str, kind: str) -> None:
    """Breaks if floats are taken for classes, each a class of its own."""
    parameters = {"alpha": 0.3, "classes": 2, "per_client": 2, "names": ("aquatic",)}
    with pytest.raises(UserError, match=f"'{kind}' divides by class, and 'signals' has task '{task}'"):
        divide(as_task(signals(), task), choice("row", kind, **parameters), clients=4, seed=3)
