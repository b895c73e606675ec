"""Loss and transform in a client program, and devices that are asked for labels or numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fedge
from fedge.coordinator.schedule import plan_round
from fedge.device.device import Device
from fedge.device.location import Location
from fedge.device.simulated import Simulated
from fedge.device.state import DeviceState
from fedge.errors import UserError
from fedge.prepare import prepare
from fedge.scenario.load import load_scenario
from fedge.training.task import Labels, Numbers
from tests.data.own.folders import scenario

OFF = ("training.error_maps.keep=1.0", "training.instance_filter={kind='none'}", "training.pruning.level=0")

ROUNDED = 2.0**-12  # sums leave with 12 significant bits


def focal(out_BK: Tensor, y_B: Tensor) -> Tensor:
    loss_B = F.cross_entropy(out_BK, y_B, reduction="none")
    return (1 - (-loss_B).exp()) ** 2 * loss_B


def jitter(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    return x_BCHW + 0.1 * torch.randn(x_BCHW.shape, generator=generator)


def weights(device: Device) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in device.model.parameters()])


def test_a_loss_of_the_programs_own_trains_and_is_named(opened) -> None:
    """Breaks if device.train goes on by the cross-entropy, or a report says so."""
    usual, own, same = opened(*OFF), opened(*OFF), opened(*OFF)
    usual.train()
    own.train(loss=focal)
    same.train(loss=lambda out, y: F.cross_entropy(out, y, reduction="none"))
    assert not torch.equal(weights(usual), weights(own))
    assert torch.allclose(weights(usual), weights(same), atol=1e-6)
    assert own.report().row()["loss"] == "own" and "loss" not in usual.report().row()
    assert own.report().macs_done == usual.report().macs_done


def test_smoothed_labels_are_no_other_loss(opened) -> None:
    """Breaks if the settings' label smoothing is not trained by, or is not a cross-entropy any more."""
    smoothed = opened(*OFF, "training.loss={kind='cross_entropy', label_smoothing=0.3}")
    own = opened(*OFF)
    smoothed.train()
    own.train(loss=lambda out, y: F.cross_entropy(out, y, label_smoothing=0.3, reduction="none"))
    assert torch.allclose(weights(smoothed), weights(own), atol=1e-6)
    assert "loss" not in smoothed.report().row()


@pytest.mark.parametrize(
    ("brought", "text"),
    [
        ({"loss": F.cross_entropy}, r"loss returned \[\] for 16 samples"),
        ({"loss": "focal"}, "loss is a str; pass a function"),
        ({"loss": lambda out, y: -focal(out, y)}, r"the loss is -.*, and a report holds 0 to 1e6"),
        ({"transform": "jitter"}, "transform is a str; pass a function"),
        ({"transform": lambda x, generator: x.mean(1)}, "transform '<lambda>' returned float32"),
    ],
)
def test_parts_that_do_not_keep_their_word_are_one_line(opened, brought: dict[str, Any], text: str) -> None:
    """Breaks if a slip in a program's loss or transform ends in a shape error of torch's, or trains towards nothing."""
    with pytest.raises(UserError, match=text) as refusal:
        opened(*OFF).train(**brought)
    assert "\n" not in str(refusal.value)


def test_a_transform_is_the_same_in_program_and_settings(opened, tmp_path: Path) -> None:
    """Breaks if a transform does not run, draws anew each time, or reaches validation data."""
    (tmp_path / "mine.py").write_text(
        "import torch\n\n\ndef jitter(x_BCHW, generator):\n"
        "    return x_BCHW + 0.1 * torch.randn(x_BCHW.shape, generator=generator)\n"
    )
    by_settings, by_program, again, usual = (
        opened(*OFF, f"training.transform={tmp_path}/mine.py:jitter"), opened(*OFF), opened(*OFF), opened(*OFF),
    )  # fmt: skip
    by_settings.train()
    by_program.train(transform=jitter)
    again.train(transform=jitter)
    usual.train()
    assert torch.equal(weights(by_settings), weights(by_program)) and torch.equal(
        weights(again), weights(by_program)
    )
    assert not torch.equal(weights(usual), weights(by_program))
    batch, plain = next(by_settings.batches(0)), next(usual.batches(0))
    assert torch.equal(batch[1], plain[1]) and not torch.equal(batch[0], plain[0])
    first, second = (next(device.shard.batches("validation", 8))[0] for device in (by_settings, usual))
    assert torch.equal(first, second)


def opened_on(folder: Path, y: np.ndarray, *changes: str) -> Device:
    """Client 0 of a scenario on 120 pictures with these targets, which their brightness tells."""
    x = np.random.default_rng(0).integers(0, 30, (120, 16, 16), dtype=np.uint8)
    x += (np.arange(120) % 12 * 15).astype(np.uint8)[:, None, None]
    fedge.write_dataset(folder / "mine", x, y, overwrite=True)
    file = scenario(folder / "s.toml", "mine", 'partition = { kind = "iid" }', clients=2)
    loaded = load_scenario(str(file), ["model.factory={epochs=3, learning_rate=0.01}", *changes])
    prepared = Path(prepare(loaded).folder)
    location = Location(0, 0, prepared, prepared / "nowhere", Simulated.of(loaded, 0))
    return Device(location, plan_round(loaded, 2), DeviceState(0))


LEVEL = np.arange(120) % 12
TARGETS: dict[str, Callable[[], np.ndarray]] = {
    "labels": lambda: (LEVEL[:, None] > np.array([2, 5, 8])).astype(np.uint8),
    "numbers": lambda: np.stack([100 * LEVEL, LEVEL / 10 - 3], 1),
}
METHODS = (
    "training.pruning.level=0.3",
    "training.instance_filter={kind='selective_backprop', keep=0.6}",
    "training.error_maps.keep=0.5",
)


@pytest.mark.parametrize("task", TARGETS)
def test_a_device_reports_on_its_task_by_hand(task: str, tmp_path: Path) -> None:
    """Breaks if a figure of labels or numbers is not that of the network on the client's own test rows."""
    device = opened_on(tmp_path, TARGETS[task](), *METHODS)
    device.prune()
    device.train(instance_filter=device.instance_filter(), error_maps=device.error_maps())
    row = device.report().row()
    shard = device.shard
    x, y = next(shard.batches("test", 1000))
    with torch.no_grad():
        now, before = (model.eval()(x) for model in (device.model, device.prepared.factory_model()))
    assert row["test_count"] == len(y) and row["criterion"] == "taylor" and "told_correct" not in row
    if task == "labels":
        right, was = (((out > 0) == y.bool()) for out in (now, before))
        assert (row["decisions"], row["loss"]) == (3, "binary")
        assert (row["test_correct"], row["factory_correct"]) == (int(right.sum()), int(was.sum()))
        assert row["test_better"] == int((right.sum(1) > was.sum(1)).sum())
        assert row["validation_correct"] > row["validation_count"]  # of three decisions each
        return
    raw = torch.from_numpy(shard.labels("test")).double()
    mean, std = (
        torch.tensor(values, dtype=torch.float64) for values in (shard.target_mean, shard.target_std)
    )
    error, was = ((out.double() * std + mean - raw).abs() for out in (now, before))
    assert row["loss"] == "squared" and "decisions" not in row
    assert row["test_error_sum"] == pytest.approx(float(error.mean(1).sum()), rel=ROUNDED)
    assert row["factory_error_sum"] == pytest.approx(float(was.mean(1).sum()), rel=ROUNDED)
    assert row["test_correct"] == int((error <= std / 2).all(1).sum())
    assert row["test_better"] + row["test_worse"] == len(y)


def test_how_near_is_near_enough_is_the_scenarios(tmp_path: Path) -> None:
    """Breaks if data.tolerance is taken in standard deviations, or not at all."""
    none, all_ = (
        opened_on(tmp_path, TARGETS["numbers"](), f"data.tolerance={text}")
        for text in ("[0.000001, 0.000001]", "[1e6, 1e6]")
    )
    assert none.report().test_correct == 0
    report = all_.report()
    assert report.test_correct == report.test_count > 0


@pytest.mark.parametrize("task", TARGETS)
def test_without_test_rows_there_is_nothing_to_tell(task: str, tmp_path: Path) -> None:
    """Breaks if a client without test rows cannot report where labels or numbers are asked for."""
    device = opened_on(tmp_path, TARGETS[task](), "data.split={train=0.8, validation=0.2, test=0.0}")
    device.train()
    report = device.report()
    assert (report.test_count, report.test_correct, report.test_better) == (0, 0, 0)


@pytest.mark.parametrize("task", TARGETS)
def test_a_level_is_searched_by_what_is_right(task: str, tmp_path: Path) -> None:
    """Breaks if a search retrains by another loss, or holds labels against another share."""
    device = opened_on(tmp_path, TARGETS[task](), "training.pruning.level={search='accuracy', slack=0.2}")
    found = device.prune()
    assert 3 <= found.tries <= 5


def test_the_tasks_are_the_datas(tmp_path: Path) -> None:
    """Breaks if scale or loss do not reach the device."""
    labels = opened_on(tmp_path, TARGETS["labels"]())
    assert labels._round.task == Labels()
    numbers = opened_on(tmp_path, TARGETS["numbers"](), "training.loss={kind='huber', delta=0.5}")
    task = numbers._round.task
    assert isinstance(task, Numbers) and task.huber == 0.5 and task.scale == numbers.shard.target_std
    assert task.scale[0] == pytest.approx(100 * task.scale[1] * 10, rel=1e-5)
    assert 0 < numbers.data_tie < 1 and 0 < labels.data_tie < 1
