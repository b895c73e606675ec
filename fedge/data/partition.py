"""Divide a data set: the factory's rows, then every client's own training, validation and test rows.

Official training and test rows are merged first, as is usual for personalised evaluation: a client is
tested on data like its own, so its test rows come out of its own share. The cuts, each decided by the seed:

    all rows -> factory rows (factory_fraction, at random) | pool
    pool     -> one share per client (`kind`, below)
    share    -> train | validation | test (fractions, at random)

That is `split.by` "row". Where rows are windows that overlap, a random cut puts neighbours on both sides of it and
its figures flatter, for the factory model as for the clients: "run" and "time" (fedge.data.dividing.recorded) settle
for all rows what they are for, before they are given to clients. "given" takes what a file says (.given).

No row is in two places. Who gets what is decided by flwr-datasets' partitioners (slow to import, so late).
Rows left over: `shards` leaves fewer than one per shard; `pathological` the classes nobody drew (none once
there are as many clients as classes); `natural` the people beyond the number of clients; `subsets` the
classes that no named subset contains. fedge.data.dividing.notices tells of them.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from fedge.data.dataset import DataSet
from fedge.data.dividing.given import read_given
from fedge.data.dividing.parts import ClientRows, DividedRows, split_rows
from fedge.data.dividing.recorded import FACTORY, GAP, TEST, TRAIN, VALIDATION, assign_parts
from fedge.data.known.cifar100_classes import SUBSETS
from fedge.errors import UserError
from fedge.seeding import derive_seed

PARTITIONS: dict[str, str] = {
    "iid": "every client draws from the same distribution, in equal numbers",
    "dirichlet": "per class, the clients' shares are drawn from Dirichlet(alpha); at least 5 rows each",
    "pathological": "every client holds `classes` classes",
    "shards": "sorted by label, cut into equal shards, `per_client` shards each",
    "natural": "one client per person who recorded the data (har, and data of one's own with owners)",
    "subsets": "CIFAR-100 by ADaPT's subsets; the clients form one group per name, in order",
    "given": "a csv file says it: row,client and, if wanted, part",
}


class Division(Protocol):
    """A scenario's `[data]` section, as far as it is read here."""

    factory_fraction: float
    partition: Any  # has `kind`, and `alpha`, `classes`, `per_client` or `names` as the kind needs
    split: Any  # has `train`, `validation`, `test`, fractions that sum to 1, and `by`: "row" if it has none


def divide(dataset: DataSet, choice: Division, *, clients: int, seed: int) -> DividedRows:
    """All cuts at once. UserError: more clients than the rows allow, a kind that the data cannot have, or a split
    that leaves a client nothing to train on."""
    by: Any = getattr(choice.split, "by", "row")
    if choice.partition.kind == "given":
        return _divide_given(dataset, choice, by, clients=clients, seed=seed)
    fractions = (choice.split.train, choice.split.validation, choice.split.test)
    if by != "row":
        part_N = assign_parts(
            dataset, by, choice.factory_fraction, fractions, seed, gap=getattr(choice.split, "gap", None)
        )
        return _divide_assigned(dataset, part_N, choice, clients=clients, seed=seed)
    rows = _generator(seed, "factory split").permutation(len(dataset))
    cut = round(choice.factory_fraction * len(rows))
    factory, pool = np.sort(rows[:cut]), rows[cut:]
    shares = partition(dataset, pool, choice.partition, clients=clients, seed=seed)
    return DividedRows(_factory_rows(factory), _split_each(shares, fractions, seed))


def _divide_given(dataset: DataSet, choice: Division, by: Any, *, clients: int, seed: int) -> DividedRows:
    """As the file says; the factory's rows at random out of those that it gives to nobody."""
    given = read_given(choice.partition.file, size=len(dataset), clients=clients)
    drawn = _generator(seed, "factory split").permutation(given.nobodys)
    factory = np.sort(drawn[: round(choice.factory_fraction * len(dataset))])
    shares = given.shares(clients)
    fractions = (choice.split.train, choice.split.validation, choice.split.test)
    if given.part_N is not None:
        return DividedRows(_factory_rows(factory), tuple(given.parts(share) for share in shares))
    if by == "row":
        return DividedRows(_factory_rows(factory), _split_each(shares, fractions, seed))
    gap = getattr(choice.split, "gap", None)
    part_N = assign_parts(
        dataset, by, 0, fractions, seed, gap=gap, factory_N=np.isin(np.arange(len(dataset)), factory)
    )
    return _cut_assigned(part_N, shares, by)


def _split_each(
    shares: Sequence[np.ndarray], fractions: Sequence[float], seed: int
) -> tuple[ClientRows, ...]:
    """Each client's rows at random, row by row."""
    return tuple(
        split_rows(share, fractions, derive_seed(seed, client, "split"))
        for client, share in enumerate(shares)
    )


def _divide_assigned(
    dataset: DataSet, part_N: np.ndarray, choice: Division, *, clients: int, seed: int
) -> DividedRows:
    """Who gets what, where it is settled what each row is for."""
    shares = partition(dataset, np.flatnonzero(part_N >= TRAIN), choice.partition, clients=clients, seed=seed)
    return _cut_assigned(part_N, shares, choice.split.by)


def _cut_assigned(part_N: np.ndarray, shares: Sequence[np.ndarray], by: str) -> DividedRows:
    """Each client's rows by what they are for."""
    clients = len(shares)
    parts = (TRAIN, VALIDATION, TEST)
    rows = tuple(ClientRows(*(share[part_N[share] == part] for part in parts)) for share in shares)
    for client, own in enumerate(rows):
        if len(own.train) == 0:
            raise UserError(
                f"data.split.by '{by}' leaves client {client} of {clients} without a training row: "
                "raise data.split.train or have fewer clients"
            )
    return DividedRows(_factory_rows(np.flatnonzero(part_N == FACTORY)), rows, gap=int((part_N == GAP).sum()))


def _factory_rows(rows: np.ndarray) -> ClientRows:
    nothing = np.empty(0, np.int64)
    return ClientRows(rows, nothing, nothing)


def partition(
    dataset: DataSet, pool: np.ndarray, choice: Any, *, clients: int, seed: int
) -> list[np.ndarray]:
    """Row numbers of `dataset` for each client: disjoint, out of `pool`, none empty (else UserError)."""
    kind = choice.kind
    if kind not in PARTITIONS:
        raise UserError(f"data.partition.kind is '{kind}'; there are {', '.join(PARTITIONS)}")
    if clients > len(pool):
        raise UserError(
            f"{clients} clients, but only {len(pool)} rows of '{dataset.name}' are left for them:"
            " lower the fleet's counts or data.factory_fraction"
        )
    pool = _generator(seed, "pool order").permutation(pool)
    if kind == "subsets":
        _classes(dataset, kind)
        shares = _by_subset(dataset, pool, choice.names, clients)
    else:
        shares = _by_flwr(dataset, pool, choice, clients, derive_seed(seed, "partition"))
    return _none_empty(shares, kind)


def _generator(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, purpose))


def _by_flwr(dataset: DataSet, pool: np.ndarray, choice: Any, clients: int, seed: int) -> list[np.ndarray]:
    from fedge.data.dividing.flwr_partitioners import positions  # slow

    key = _people(dataset, pool, clients) if choice.kind == "natural" else _classes(dataset, choice.kind)
    if choice.kind == "shards":
        pool = pool[np.argsort(key[pool], kind="stable")]
    try:
        return [pool[share] for share in positions(key[pool], choice, clients, seed)]
    except ValueError as error:  # what flwr-datasets raises where the division is impossible
        wish = ", ".join(f"{name} = {value}" for name, value in _parameters(choice).items())
        raise UserError(
            f"data.partition ({wish}) cannot give each of {clients} clients its rows out of {len(pool)}:"
            f" {_ADVICE[choice.kind]}"
        ) from error


BY_CLASS = ("dirichlet", "pathological", "shards", "subsets")


def _classes(dataset: DataSet, kind: str) -> np.ndarray:
    """The class of each row, for a division that goes by it; nothing to go by for `iid` of another task."""
    if dataset.task == "classes":
        return dataset.y
    if kind in BY_CLASS:
        raise UserError(
            f"data.partition kind {kind!r} divides by class, and '{dataset.name}' has task {dataset.task!r}: take iid, "
            "natural or given"
        )
    return np.zeros(len(dataset), np.int64)


def _people(dataset: DataSet, pool: np.ndarray, clients: int) -> np.ndarray:
    """Who recorded each row of the data set."""
    if dataset.subject is None:
        raise UserError(
            f"data.partition.kind 'natural' needs to know who recorded each row; '{dataset.name}' does not"
            " say (har does; data of one's own where they were imported with owners): choose another kind"
        )
    people = len(np.unique(dataset.subject[pool]))
    if clients > people:
        lost = len(np.unique(dataset.subject)) - people
        more = f" ({lost} more had so few rows that the factory got them all)" if lost else ""
        raise UserError(
            f"{clients} clients, but '{dataset.name}' comes from {people} people{more} and data.partition.kind is"
            f" 'natural': let the fleet's counts sum to at most {people}"
        )
    return dataset.subject


_ADVICE = {
    "iid": "have fewer clients",
    "dirichlet": "raise alpha or have fewer clients (every client must get 5 rows)",
    "pathological": "lower classes or have fewer clients",
    "shards": "lower per_client or have fewer clients",
    "natural": "have fewer clients",
}


def _parameters(choice: Any) -> dict[str, Any]:
    names = ("kind", "alpha", "classes", "per_client")
    return {name: getattr(choice, name) for name in names if hasattr(choice, name)}


def _by_subset(dataset: DataSet, pool: np.ndarray, names: Sequence[str], clients: int) -> list[np.ndarray]:
    """Deal each class's rows evenly to all clients whose subset holds it: subsets overlap, shares do not."""
    if dataset.name != "cifar100":
        raise UserError(
            f"data.partition.kind 'subsets' is of cifar100's classes; data.dataset is '{dataset.name}'"
        )
    if unknown := [name for name in names if name not in SUBSETS]:
        raise UserError(f"data.partition.names holds '{unknown[0]}'; there are {', '.join(SUBSETS)}")
    if clients < len(names):
        raise UserError(
            f"data.partition.names has {len(names)} subsets for {clients} clients; each needs one at least"
        )
    groups = np.array_split(np.arange(clients), len(names))
    name_of = {int(client): name for name, group in zip(names, groups, strict=True) for client in group}
    shares: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for label in range(dataset.num_classes):
        holders = [client for client, name in name_of.items() if label in SUBSETS[name]]
        if not holders:
            continue
        # A class's surplus rows go to its first holders; turning the order by class spreads them.
        turn = label % len(holders)
        rows = pool[dataset.y[pool] == label]
        for client, part in zip(
            holders[turn:] + holders[:turn], np.array_split(rows, len(holders)), strict=True
        ):
            shares[client].append(part)
    return [np.concatenate(parts) for parts in shares]


def _none_empty(shares: list[np.ndarray], kind: str) -> list[np.ndarray]:
    for client, share in enumerate(shares):
        if len(share) == 0:
            raise UserError(
                f"data.partition.kind '{kind}' leaves client {client} of {len(shares)} without a single row:"
                " have fewer clients"
            )
    return shares
