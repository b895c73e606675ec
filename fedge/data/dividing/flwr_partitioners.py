"""flwr-datasets' partitioners, asked for positions rather than for data sets. Slow to import: three seconds.

A partitioner divides a `datasets.Dataset` and hands out a new Dataset per client, a few milliseconds each. We
only want to know who gets which rows, so it is given a table whose `select` answers with the positions.
"""

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Dataset
from flwr_datasets import partitioner as flwr

# A Dirichlet draw may leave a client next to nothing. Of five rows a 60/20/20 split leaves no part empty;
# flwr-datasets draws up to 11 times to reach them.
DIRICHLET_MIN_ROWS = 5
_KEY = "key"


class _Positions(Dataset):  # type: ignore[misc]  # a library without types
    """A table of one column, `key`, in order already where the partitioner wants it sorted."""

    def select(self, indices: Any, *_: Any, **__: Any) -> np.ndarray:
        return np.asarray(indices, dtype=np.int64)

    def sort(self, *_: Any, **__: Any) -> "_Positions":
        return self


def positions(key_N: np.ndarray, choice: Any, clients: int, seed: int) -> list[np.ndarray]:
    """Positions in `key_N` (labels, or people for `natural`) of each client's rows.

    `shards` wants `key_N` in ascending order. ValueError, of flwr-datasets: the division is impossible.
    """
    partitioner = _MAKE[choice.kind](choice, clients, seed)
    partitioner.dataset = _Positions(Dataset.from_dict({_KEY: key_N}).data)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
    ):  # `natural` draws a progress bar
        warnings.simplefilter("ignore")  # of every Dirichlet draw that is repeated, and of unused classes
        return [partitioner.load_partition(client) for client in range(clients)]


_MAKE: dict[str, Callable[[Any, int, int], flwr.Partitioner]] = {
    "iid": lambda choice, clients, seed: flwr.IidPartitioner(clients),
    "dirichlet": lambda choice, clients, seed: flwr.DirichletPartitioner(
        clients, _KEY, alpha=float(choice.alpha), min_partition_size=DIRICHLET_MIN_ROWS, seed=seed
    ),
    # every class goes to somebody before chance decides the rest
    "pathological": lambda choice, clients, seed: flwr.PathologicalPartitioner(
        clients, _KEY, choice.classes, class_assignment_mode="first-deterministic", seed=seed
    ),
    "shards": lambda choice, clients, seed: flwr.ShardPartitioner(
        clients, _KEY, choice.per_client, seed=seed
    ),
    "natural": lambda choice, clients, seed: flwr.NaturalIdPartitioner(_KEY),
}
