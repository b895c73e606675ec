"""`training.loss`, `training.transform` and what fits the data's task, before anything starts."""

from pathlib import Path

import numpy as np
import pytest

import fedge
from fedge.errors import UserError
from fedge.scenario.load import load_scenario
from fedge.scenario.training import Huber
from tests.data.own.folders import scenario

X = np.zeros((60, 1, 16, 16), np.uint8)
Y = {
    "classes": np.arange(60) % 3,
    "labels": (np.arange(60)[:, None] >> np.arange(3) & 1).astype(np.uint8),
    "numbers": np.random.default_rng(0).normal(size=(60, 3)),
}


def load(folder: Path, task: str, *changes: str) -> object:
    fedge.write_dataset(folder / "mine", X, Y[task], overwrite=True)
    return load_scenario(str(scenario(folder / "s.toml", "mine")), changes)


@pytest.mark.parametrize(
    ("task", "change", "said"),
    [
        ("classes", 'training.loss={kind="squared"}', "loss.kind is 'squared', and 'mine/' has task 'classes'"),
        ("labels", 'training.loss={kind="cross_entropy"}', "has task 'labels': take binary, or leave loss out"),
        ("numbers", 'training.loss={kind="binary"}', "has task 'numbers': take squared or huber"),
        ("numbers", 'model.factory.loss={kind="binary"}', "model.factory.loss.kind is 'binary'"),
        ("labels", 'fleet.0.training={loss={kind="huber"}}', "fleet.0.training.loss.kind is 'huber'"),
        ("labels", 'data.partition={kind="dirichlet"}', "'dirichlet' divides by class, and 'mine/' has task 'labels'"),
        ("numbers", 'data.partition={kind="pathological"}', "'pathological' divides by class"),
        ("numbers", 'data.partition={kind="shards"}', "'shards' divides by class"),
        ("classes", "data.tolerance=0.5", "data.tolerance is for task 'numbers', and 'mine/' has task 'classes'"),
        ("numbers", "data.tolerance=[0.5, 1.0]", "data.tolerance has 2 entries and 'mine/' 3 numbers"),
        ("numbers", "data.tolerance=0.0", "data.tolerance is 0.0"),
        ("classes", 'training.loss={kind="focal"}', "training.loss.kind is 'focal'"),
        ("classes", "training.loss=huber", "training.loss is \"huber\"; it is a section"),
        ("classes", 'training.loss={kind="cross_entropy", label_smoothing=1.0}', "label_smoothing is 1.0"),
        ("classes", 'training.loss={kind="binary", label_smoothing=0.1}', "label_smoothing"),
        ("classes", "training.transform=crop", "did you mean 'crop_flip'"),
        ("classes", "training.augment=crop_flip", "did you mean 'transform'"),
        ("classes", "model.factory.augment=crop_flip", "did you mean 'transform'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(tmp_path: Path, task: str, change: str, said: str) -> None:
    """Breaks if a loss or a division of another task starts, and fails on every device or trains towards nonsense."""
    with pytest.raises(UserError) as refusal:
        load(tmp_path, task, change)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("classes", ['training.loss={kind="cross_entropy", label_smoothing=0.1}', "training.transform=crop_flip"]),
        ("labels", ['training.loss={kind="binary"}']),
        ("numbers", ['training.loss={kind="huber", delta=0.5}', "data.tolerance=[0.5, 1.0, 2.0]"]),
        ("numbers", ['model.factory.loss={kind="huber"}', "data.tolerance=0.5"]),
    ],
)  # fmt: skip
def test_what_fits_is_taken(tmp_path: Path, task: str, changes: list[str]) -> None:
    """Breaks if a setting that the guide shows is refused."""
    load(tmp_path, task, *changes)


def test_a_class_of_devices_has_a_loss_of_its_own(tmp_path: Path) -> None:
    """Breaks if a change for one device class replaces the others' loss."""
    loaded = load(tmp_path, "numbers", 'fleet.0.training={loss={kind="huber", delta=2.0}}')
    assert loaded.training.loss is None
    assert loaded.training_of(loaded.fleet[0]).loss == Huber(kind="huber", delta=2.0)


def test_a_transform_of_ones_own_lies_beside_the_scenario(tmp_path: Path) -> None:
    """Breaks if its text does not travel, or a missing file is found in the middle of a run."""
    (tmp_path / "mine.py").write_text("def jitter(x_BCHW, generator):\n    return x_BCHW\n")
    file = scenario(tmp_path / "s.toml", "mine")
    fedge.write_dataset(tmp_path / "mine", X, Y["classes"])
    text = file.read_text().replace("[training]\n", '[training]\ntransform = "mine.py:jitter"\n')
    file.write_text(text)
    loaded = load_scenario(str(file))
    assert loaded.training.transform == f"{tmp_path}/mine.py:jitter"
    assert list(loaded.programs) == [f"{tmp_path}/mine.py"]
    with pytest.raises(UserError, match=r"gone\.py"):
        load_scenario(str(file), ["training.transform=gone.py:jitter"])
