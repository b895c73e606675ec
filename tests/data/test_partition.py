"""Who gets which rows."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.data.dataset import DataSet
from fedge.data.known.cifar100_classes import COARSE_OF_FINE, FINE_CLASSES, SUBSETS
from fedge.data.partition import divide, partition, split_rows
from fedge.errors import UserError

FEW = settings(max_examples=15, deadline=None)


def toy(rows: int = 400, classes: int = 10, *, name: str = "toy", people: int | None = None) -> DataSet:
    """Rows with labels and people in turn, and a picture of one pixel each: its own row number."""
    row_N = np.arange(rows)
    subject = row_N % people + 1 if people else None
    x = row_N.astype(np.float32).reshape(-1, 1, 1, 1)
    return DataSet(name, x, row_N % classes, classes, rows, (0.0,), (1.0,), subject)


def kind(name: str, **parameters: object) -> SimpleNamespace:
    return SimpleNamespace(kind=name, **parameters)


KINDS = st.sampled_from(
    [
        kind("iid"),
        kind("dirichlet", alpha=0.3),
        kind("dirichlet", alpha=10.0),
        kind("pathological", classes=2),
        kind("shards", per_client=2),
    ]
)


@FEW
@given(choice=KINDS, clients=st.integers(1, 30), seed=st.integers(0, 5))
def test_shares_are_disjoint_and_none_is_empty_or_the_division_is_refused(choice, clients, seed):
    """Two clients would train on the same private row, or one would have nothing to train on."""
    dataset, pool = toy(), np.arange(50, 400)
    try:
        shares = partition(dataset, pool, choice, clients=clients, seed=seed)
    except UserError:
        assert choice.kind == "dirichlet"  # only a draw can fail here
        return
    together = np.concatenate(shares)
    assert len(shares) == clients and min(map(len, shares)) > 0
    assert len(set(together)) == len(together) and set(together) <= set(pool)
    left_over = len(pool) - len(together)
    allowed = {"shards": clients * 2 - 1, "pathological": 0 if clients >= 10 else len(pool)}
    assert left_over <= allowed.get(choice.kind, 0)


@pytest.mark.parametrize("choice", [kind("iid"), kind("dirichlet", alpha=0.5), kind("shards", per_client=2)])
def test_the_seed_decides_and_nothing_else(choice):
    """A resumed run would hand the devices different data."""
    one, two, other = (partition(toy(), np.arange(400), choice, clients=7, seed=seed) for seed in (3, 3, 4))
    assert all(map(np.array_equal, one, two))
    assert not all(map(np.array_equal, one, other))


def test_pathological_clients_hold_the_classes_asked_for_and_no_class_is_lost():
    """The scenario's '2 classes per client' would not be what runs."""
    dataset = toy()
    shares = partition(dataset, np.arange(400), kind("pathological", classes=2), clients=12, seed=0)
    assert [len(set(dataset.y[share])) for share in shares] == [2] * 12
    assert len(np.concatenate(shares)) == 400


def test_natural_gives_one_person_to_one_client():
    """A client would hold two people's data."""
    dataset = toy(people=8)
    shares = partition(dataset, np.arange(400), kind("natural"), clients=8, seed=0)
    assert [set(dataset.subject[share]) for share in shares] == [{person} for person in range(1, 9)]


def test_subsets_form_groups_in_order_and_overlaps_are_shared_out():
    """A group would see classes outside its subset, or two groups the same picture."""
    dataset = toy(2000, 100, name="cifar100")
    names = ("outdoor", "natural")  # both hold small_mammals
    shares = partition(dataset, np.arange(2000), kind("subsets", names=names), clients=5, seed=0)
    for client, share in enumerate(shares):
        assert set(dataset.y[share]) == SUBSETS["outdoor" if client < 3 else "natural"]
    together = np.concatenate(shares)
    assert len(set(together)) == len(together) == 20 * len(SUBSETS["outdoor"] | SUBSETS["natural"])
    assert max(map(len, shares)) <= 1.25 * max(min(map(len, shares[:3])), min(map(len, shares[3:])))


def test_subsets_are_those_of_the_paper():
    """ADaPT's experiment would be run on other classes than its own."""
    assert {name: len(labels) for name, labels in SUBSETS.items()} == {
        "aquatic": 10,
        "indoor": 15,
        "outdoor": 35,
        "natural": 40,
        "random": 65,
    }
    assert len(FINE_CLASSES) == 100 and FINE_CLASSES[0] == "apple" and FINE_CLASSES[99] == "worm"
    assert COARSE_OF_FINE[FINE_CLASSES.index("apple")] == 4  # fruit_and_vegetables, as in the file


@FEW
@given(rows=st.integers(1, 60), train=st.floats(0.05, 1), rest=st.floats(0, 1), seed=st.integers(0, 9))
def test_a_share_is_cut_without_loss_and_always_leaves_a_training_row(rows, train, rest, seed):
    """A row would be lost or tested on after training, or a client could not train."""
    fractions = (train, (1 - train) * rest, (1 - train) * (1 - rest))
    parts = split_rows(np.arange(100, 100 + rows), fractions, seed).parts
    assert sorted(np.concatenate(parts)) == list(range(100, 100 + rows))
    assert len(parts[0]) >= 1


@pytest.mark.parametrize(("rows", "sizes"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (4, (2, 1, 1)), (10, (6, 2, 2))])
def test_small_shares_are_cut_as_documented(rows, sizes):
    """The one-row client would have no defined outcome."""
    assert tuple(map(len, split_rows(np.arange(rows), (0.6, 0.2, 0.2), 0).parts)) == sizes


def test_divide_keeps_the_factory_rows_from_every_client():
    """The factory model would have been trained on the devices' private data."""
    split = SimpleNamespace(train=0.6, validation=0.2, test=0.2)
    choice = SimpleNamespace(factory_fraction=0.25, partition=kind("iid"), split=split)
    divided = divide(toy(), choice, clients=6, seed=1)
    of_clients = np.concatenate([np.concatenate(rows.parts) for rows in divided.clients])
    assert len(divided.factory.train) == 100
    assert sorted(np.concatenate([divided.factory.train, of_clients])) == list(range(400))


@pytest.mark.parametrize(
    ("choice", "clients", "message"),
    [
        (kind("iid"), 500, "500 clients, but only 400 rows"),
        (kind("dirichlet", alpha=0.001), 60, "raise alpha"),
        (kind("pathological", classes=11), 5, "lower classes"),
        (kind("natural"), 5, "does not say"),
        (kind("subsets", names=("aquatic",)), 5, "cifar100"),
        (kind("even"), 5, "there are iid"),
    ],
)
def test_an_impossible_division_is_one_clear_line(choice, clients, message):
    """The user would see a traceback of flwr-datasets, or wait for ever for a Dirichlet draw."""
    with pytest.raises(UserError, match=message) as caught:
        partition(toy(), np.arange(400), choice, clients=clients, seed=0)
    assert "\n" not in str(caught.value)


def test_an_owner_whose_only_row_the_factory_got_is_told_of():
    """Breaks if somebody who counts three owners in the data is told that there are two, and not why."""
    x = np.zeros((20, 1, 2, 2), np.uint8)
    owned = DataSet("toy", x, np.arange(20) % 2, 2, 20, (0.0,), (1.0,), np.array([0] * 10 + [1] * 9 + [2]))
    with pytest.raises(UserError, match=r"comes from 2 people \(1 more had so few rows"):
        partition(owned, np.arange(19), SimpleNamespace(kind="natural"), clients=3, seed=0)
