"""What a person should know of how the data were divided: one line each, empty where there is nothing to tell."""

import numpy as np

from fedge.data.checks import absent_classes, named_classes
from fedge.data.dataset import DataSet
from fedge.data.dividing.parts import DividedRows
from fedge.data.dividing.repeats import repeated_test_rows
from fedge.data.partition import Division

_IMBALANCE = 10  # times as many rows of one class as of another
_FEW = 10  # rows of one client
_MOST_CLASSES = 100  # that whole numbers may have been meant as


def division_notices(dataset: DataSet, divided: DividedRows, choice: Division) -> list[str]:
    """Rows and classes that are nobody's, parts that are empty or small, classes out of balance, test rows that stand
    among training rows too."""
    lines = [
        *_of_targets(dataset),
        _overlapping(dataset, getattr(choice.split, "by", "row")),
        _nobodys(dataset, divided, choice.partition.kind),
        _gap(dataset, divided),
        _untested(divided) if choice.split.test else "",
        _few(divided),
        _unknown_to_factory(dataset, divided),
        _repeated(dataset, divided),
    ]
    return [line for line in lines if line]


def _of_targets(dataset: DataSet) -> list[str]:
    """What y alone tells: classes without a row, or few; labels and numbers that never change, or look like classes."""
    if dataset.task == "classes":
        return [_empty_classes(dataset), _imbalance(dataset)]
    constant = np.flatnonzero(dataset.y.min(0) == dataset.y.max(0)).tolist()
    names = ", ".join(
        f"'{(dataset.classes or range(dataset.num_classes))[column]}'" for column in constant[:5]
    )
    more = ", ..." if len(constant) > 5 else ""
    told = f"the same in every row of '{dataset.name}', so that nothing can be learned of them: {names}{more}"
    return [f"{dataset.task} that are {told}" if constant else "", _perhaps_classes(dataset)]


def _perhaps_classes(dataset: DataSet) -> str:
    """Told where labels exclude each other, or numbers are few whole ones: they may have been meant as classes."""
    if dataset.task == "labels":
        one_hot = dataset.num_classes > 1 and bool((dataset.y.sum(1) == 1).all())
        what, mend = f"each row of '{dataset.name}' has exactly one of its labels", "y.argmax(1)"
    else:
        values = np.unique(dataset.y) if dataset.num_classes == 1 else np.empty(0)
        one_hot = 1 < len(values) <= _MOST_CLASSES and bool((values == np.arange(len(values))).all())
        what, mend = f"the numbers of '{dataset.name}' are 0 to {len(values) - 1} and whole", "y.astype(int)"
    return f"{what}: if they are classes, write {mend} and task classes" if one_hot else ""


def _empty_classes(dataset: DataSet) -> str:
    classes = absent_classes(dataset.y, dataset.num_classes)
    return f"data set '{dataset.name}' holds no row of {named_classes(classes)}" if classes else ""


def _imbalance(dataset: DataSet) -> str:
    """Told where the commonest class has ten times the samples of the rarest: accuracy then hides the rare ones."""
    count_K = np.bincount(dataset.y, minlength=dataset.num_classes)
    held = np.flatnonzero(count_K)
    if len(held) < 2 or (most := int(count_K.max())) < _IMBALANCE * (least := int(count_K[held].min())):
        return ""
    rare, common = int(held[count_K[held].argmin()]), int(count_K.argmax())
    return (
        f"the classes of '{dataset.name}' are out of balance: {_class(dataset, common)} has {most:,} of "
        f"{len(dataset):,} rows, {_class(dataset, rare)} {least:,}; always to answer {_class(dataset, common)} is "
        f"right in {most / len(dataset):.1%}"
    )


def _class(dataset: DataSet, label: int) -> str:
    return f"'{dataset.classes[label]}'" if dataset.classes else f"class {label}"


def _overlapping(dataset: DataSet, by: str) -> str:
    """Told of data of one's own: HAR's own split is documented."""
    if by != "row" or not dataset.overlap or not dataset.digest:
        return ""
    return (
        f"the windows of '{dataset.name}' overlap and data.split.by is 'row': parts of test rows are trained on, and "
        "accuracy is too good; take 'run' or 'time'"
    )


def _few(divided: DividedRows) -> str:
    """Told where a client holds no more than a handful of rows, training, validation and test together."""
    held = [sum(map(len, rows.parts)) for rows in divided.clients]
    few = [client for client, rows in enumerate(held) if rows < _FEW]
    if not few:
        return ""
    return (
        f"{len(few)} of {len(held)} clients hold fewer than {_FEW} rows (client {few[0]}: {held[few[0]]}): "
        "what they report is chance more than anything"
    )


def _missing_among(dataset: DataSet, rows: np.ndarray) -> list[int]:
    """Classes that the data set holds and `rows` do not; none of another task."""
    if dataset.task != "classes":
        return []
    everywhere = set(absent_classes(dataset.y, dataset.num_classes))
    return [
        label for label in absent_classes(dataset.y[rows], dataset.num_classes) if label not in everywhere
    ]


def _nobodys(dataset: DataSet, divided: DividedRows, kind: str) -> str:
    """Rows that are neither the factory's nor a client's, though nothing but the partition kept them from it."""
    held_N = np.concatenate([np.concatenate(rows.parts) for rows in divided.clients])
    factory = len(divided.factory.train)
    left = len(dataset) - factory - divided.gap - len(held_N)
    if left == 0:
        return ""
    classes = _missing_among(dataset, held_N)
    whose = f"; {named_classes(classes)} {'is' if len(classes) == 1 else 'are'} nobody's" if classes else ""
    return f"data.partition '{kind}' leaves {left:,} of {left + len(held_N):,} rows to no client{whose}" + (
        ": have more clients, or more classes each" if kind == "pathological" else ""
    )


def _gap(dataset: DataSet, divided: DividedRows) -> str:
    if not divided.gap:
        return ""
    return (
        f"data.split drops {divided.gap:,} of {len(dataset):,} rows, so that no row shares a sample with a row of "
        "another part (train, validation, test, factory)"
    )


def _untested(divided: DividedRows) -> str:
    untested = sum(len(rows.test) == 0 for rows in divided.clients)
    if untested == 0:
        return ""
    return f"{untested} of {len(divided.clients)} clients have no test row: they report no accuracy"


def _unknown_to_factory(dataset: DataSet, divided: DividedRows) -> str:
    classes = _missing_among(dataset, divided.factory.train)
    if not classes or not len(divided.factory.train):
        return ""
    return f"the factory split holds no row of {named_classes(classes)}: data.factory_fraction is small"


def _repeated(dataset: DataSet, divided: DividedRows) -> str:
    of_factory, of_own = repeated_test_rows(dataset.x, divided.factory, divided.clients)
    if not of_factory and not of_own:
        return ""
    tested = sum(len(rows.test) for rows in divided.clients)
    return (
        f"of {tested:,} test rows, {of_factory:,} equal a row that the factory model is trained on and {of_own:,} "
        f"one that their own client trains on, bit for bit: '{dataset.name}' repeats itself"
    )
