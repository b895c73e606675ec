"""Load a whole data set into arrays, official training rows first.

Legend: N rows, C channels, H height, W width.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedge.catalog.data_folder import FolderFacts
from fedge.catalog.datasets import DATASETS, dataset_facts
from fedge.catalog.facts import DatasetFacts
from fedge.catalog.named import Named
from fedge.data.checks import check_rows, check_size
from fedge.data.dataset import DataSet, channel_statistics
from fedge.data.known.rows import Rows
from fedge.data.own.reading import load_folder
from fedge.progress import tell

READERS: Named[Callable[[DatasetFacts, Path], Rows]] = Named(
    {name: facts.reader for name, facts in DATASETS.items()}
)


def load_dataset(name: str, root: Path | str) -> DataSet:
    """A data folder's, memory-mapped; or the data set called `name` from its files under `root`, fetched first where
    they are absent and the network allows.

    `digits` needs neither. UserError: no such set; files missing and not to be had; files unreadable, or not what is
    known of the set (dtypes, shapes, counts, classes, finite numbers).
    """
    facts = dataset_facts(name)
    if isinstance(facts, FolderFacts):
        return load_folder(facts)
    return _checked(facts, READERS[name](facts, Path(root).expanduser()))


def _checked(facts: DatasetFacts, rows: Rows) -> DataSet:
    """What was read, held against the facts."""
    tell("checking")
    classes, who = facts.num_classes, rows.who
    check_rows(
        rows.x_NCHW, rows.y_N, num_classes=classes, shape=facts.shape, subject_N=rows.subject_N, who=who
    )
    check_size(rows.x_NCHW, rows.y_N, size=facts.size, num_classes=classes, who=who)
    order_N = slice(None) if rows.order_N is None else rows.order_N
    x_NCHW, y_N = rows.x_NCHW[order_N], rows.y_N[order_N].astype(np.int64)
    mean, std = channel_statistics(x_NCHW[: facts.train_count])
    return DataSet(
        facts.name,
        x_NCHW,
        y_N,
        classes,
        facts.train_count,
        mean,
        std,
        subject=None if rows.subject_N is None else rows.subject_N[order_N].astype(np.int64),
        coarse=None if rows.coarse_of_class is None else rows.coarse_of_class[y_N],
        ordered=facts.ordered,
        stride=facts.stride,
    )
