"""What each data set is, known without opening a file or importing torch: the scenario checks read this.

Shapes are [C, H, W] as a network sees them: a HAR window is 9 channels of 1 x 128 samples, a digit is
16 x 16 because scikit-learn's 8 x 8 digits have each pixel repeated 2 x 2 (LeNet needs at least 16). A line here is
all that a new data set needs, beside the file with its reader.
"""

from pathlib import Path

from fedge.catalog.data_folder import folder_facts
from fedge.catalog.facts import DatasetFacts
from fedge.catalog.names import did_you_mean
from fedge.errors import UserError

_DIGITS = "fedge.data.known.digits:read"
_PICTURES = "fedge.data.known.pictures:read"
_HAR = "fedge.data.known.har:read"

DATASETS: dict[str, DatasetFacts] = {
    facts.name: facts
    for facts in (
        DatasetFacts(
            "digits", "scikit-learn's handwritten digits (UCI)", (1, 16, 16), 10, 1797, 1437, reader=_DIGITS
        ),
        DatasetFacts(
            "mnist", "MNIST digits", (1, 28, 28), 10, 70_000, 60_000, files="MNIST/raw", reader=_PICTURES
        ),
        DatasetFacts(
            "fashion_mnist",
            "Fashion-MNIST clothes",
            (1, 28, 28),
            10,
            70_000,
            60_000,
            files="FashionMNIST/raw",
            reader=_PICTURES,
        ),
        DatasetFacts(
            "cifar10",
            "CIFAR-10 pictures",
            (3, 32, 32),
            10,
            60_000,
            50_000,
            files="cifar-10-batches-py",
            reader=_PICTURES,
        ),
        DatasetFacts(
            "cifar100",
            "CIFAR-100 pictures",
            (3, 32, 32),
            100,
            60_000,
            50_000,
            files="cifar-100-python",
            reader=_PICTURES,
        ),
        DatasetFacts(
            "har",
            "UCI HAR: a phone at the waist, 2.56 s windows",
            (9, 1, 128),
            6,
            10_299,
            7352,
            people=30,
            files="uci_har.npz",
            ordered=True,
            stride=64,
            reader=_HAR,
        ),
    )
}


def dataset_facts(name: str) -> DatasetFacts:
    """The facts of one data set: a name, or the path of a data folder, whose facts.json is read and nothing else.

    UserError, with the nearest name, where there is neither.
    """
    if name in DATASETS:
        return DATASETS[name]
    if is_folder(name):
        return folder_facts(name)
    raise UserError(
        f"data.dataset is '{name}'; {did_you_mean(name, DATASETS)}, or give a data folder (`fedge import` makes one)"
    )


def is_folder(name: str, beside: Path | None = None) -> bool:
    """Whether `data.dataset` means a folder, and no name: it has a slash, or is a folder in `beside`."""
    return bool(name) and name not in DATASETS and ("/" in name or ((beside or Path()) / name).is_dir())
