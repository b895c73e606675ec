"""A training loop of a program's own: it costs what `device.train` costs, or it is refused."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from fedge.device.device import Device
from fedge.device.memory.demand import peak_bytes, state_copies
from fedge.errors import UserError
from fedge.protocol import DeviceFailure, Status
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.instance_filter.by_chance import RandomFilter
from fedge.training.macs import count_macs

OFF = ("training.pruning.level=0", "training.instance_filter.kind=none", "training.error_maps.keep=1.0")
COSTS = (
    "samples_seen",
    "samples_kept",
    "macs_done",
    "macs_dense",
    "bit_operations",
    "memory_bytes",
    "batch_size",
)


def adam(parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def own_loop(device: Device, optimizer: torch.optim.Optimizer, count=None, epochs: int = 1) -> None:
    device.model.train()
    for epoch in range(epochs):
        for x_BCHW, y_B in device.batches(epoch):
            optimizer.zero_grad()
            loss = F.cross_entropy(device.model(x_BCHW), y_B)
            loss.backward()
            optimizer.step()
            if count is not None:
                count.step(seen=len(y_B), kept=len(y_B), loss=loss)


@pytest.mark.parametrize("make", [adam, partial(torch.optim.SGD, lr=0.05, momentum=0.9)], ids=["adam", "sgd"])
def test_a_counted_loop_is_reported_as_the_devices_own_training_would_be(opened, make) -> None:
    """Breaks if an own loop is free or dear: costs, memory, losses and weights must be those of device.train()."""
    changes = (*OFF, "training.epochs=2", "training.learning_rate=0.05")
    usual, own = opened(*changes), opened(*changes)
    usual.train(optimizer=make)
    optimizer = make(own.model.parameters())
    with own.counted() as count:
        own_loop(own, optimizer, count, epochs=2)
    theirs, ours = usual.report(), own.report()
    assert {name: getattr(ours, name) for name in COSTS} == {name: getattr(theirs, name) for name in COSTS}
    assert ours.epoch_loss == pytest.approx(theirs.epoch_loss) and len(ours.epoch_loss) == 2
    assert ours.train_loss == pytest.approx(theirs.train_loss)
    assert own.steps == usual.steps
    assert all(
        torch.equal(a, b) for a, b in zip(own.model.parameters(), usual.model.parameters(), strict=True)
    )


def uncounted(device: Device) -> None:
    own_loop(device, adam(device.model.parameters()))


def uncounted_after_counted(device: Device) -> None:
    device.train()
    uncounted(device)


def uncounted_before_counted(device: Device) -> None:
    uncounted(device)
    device.train()


def swapped(device: Device) -> None:
    device.model = copy.deepcopy(device.model)
    uncounted(device)


def only_claimed(device: Device) -> None:
    with device.counted() as count:
        count.step(seen=4, loss=0.5)
        with torch.no_grad():
            next(device.model.parameters()).mul_(0.5)


def statistics(device: Device) -> None:
    device.model.train()
    with torch.no_grad():
        device.model(torch.randn(8, *device.shard.shape))


@pytest.mark.parametrize(
    "change", [uncounted, uncounted_after_counted, uncounted_before_counted, swapped, only_claimed]
)
def test_what_nobody_counted_is_refused(opened, change) -> None:
    """Breaks if a training loop of one's own is reported with no sample, no MAC, no time: as free."""
    device = opened(*OFF)
    with pytest.raises(UserError, match=r"nothing was counted.*device\.counted\(\)") as caught:
        change(device)
        device.report()
    assert "\n" not in str(caught.value)


def test_running_statistics_are_learnt_too(opened) -> None:
    """Breaks if adapting batch norms by forward passes in training mode is free."""
    device = opened(*OFF, "model.name=resnet8", "model.factory.epochs=0")
    statistics(device)
    with pytest.raises(UserError, match="running statistics"):
        device.report()
    device = opened(*OFF, "model.name=resnet8", "model.factory.epochs=0")
    with device.counted():
        statistics(device)
    assert device.report().macs_done == 8 * count_macs(device.model, device.shard.shape).forward


def test_what_changes_nothing_needs_no_counting(opened) -> None:
    """Breaks if a program that only looks, or that trains nothing, is refused."""
    device = opened(*OFF)
    with torch.no_grad():
        device.model(torch.randn(2, *device.shard.shape))
    device.evaluate("validation")
    report = device.report()
    assert report.macs_done == report.samples_seen == 0


def test_a_pass_without_a_gradient_costs_its_forward_alone(opened) -> None:
    """Breaks if looking at losses inside a counted loop is free, or is charged as training."""
    device = opened(*OFF)
    table = count_macs(device.model, device.shard.shape)
    x_BCHW, y_B = next(iter(device.batches(0)))
    with device.counted() as count:
        with torch.no_grad():
            device.model(x_BCHW)
        assert count.macs == len(y_B) * table.forward
        with torch.inference_mode():
            device.model(x_BCHW)
        assert count.macs == 2 * len(y_B) * table.forward
        device.model(x_BCHW)  # a gradient could be asked for, and never is
        assert count.macs == 3 * len(y_B) * table.forward
        F.cross_entropy(device.model(x_BCHW), y_B).backward()
    assert count.macs == len(y_B) * (3 * table.forward + table.training)


def test_evaluation_in_a_loop_is_no_epoch(opened) -> None:
    """Breaks if stopping early by validation data is free, or adds losses of epochs that never ran."""
    device = opened(*OFF, "training.epochs=2")
    table, rows = count_macs(device.model, device.shard.shape), device.shard.count("validation")
    with device.counted() as count:
        device.evaluate("validation")
        own_loop(device, adam(device.model.parameters()), count, epochs=2)
        device.evaluate("validation")
    report = device.report()
    assert len(report.epoch_loss) == 2
    assert report.macs_done == 2 * len(device.shard) * table.training + 2 * rows * table.forward


def test_a_copy_of_the_network_is_counted_as_the_network_is(opened) -> None:
    """Breaks if training a copy and loading it back, as averaging does, is a way to train for free."""
    device = opened(*OFF)
    with device.counted() as count:
        other = copy.deepcopy(device.model)
        x_BCHW, y_B = next(iter(device.batches(0)))
        F.cross_entropy(other(x_BCHW), y_B).backward()
        torch.optim.SGD(other.parameters(), lr=0.1).step()
        device.model.load_state_dict(other.state_dict())
        count.step(seen=len(y_B), loss=1.0)
    assert device.report().macs_done == len(y_B) * count_macs(device.model, device.shard.shape).training


def test_frozen_weights_cost_no_gradient(opened) -> None:
    """Breaks if a loop over the last layer alone is charged for gradients that nobody computes."""
    device = opened(*OFF)
    for parameter in list(device.model.parameters())[:-2]:
        parameter.requires_grad_(False)
    with device.counted() as count:
        own_loop(device, torch.optim.SGD(list(device.model.parameters())[-2:], lr=0.1), count)
    table = count_macs(device.model, device.shard.shape)
    assert table.weight_gradient < table.forward
    assert device.report().macs_done == device.shard.count("train") * table.training


def test_device_train_inside_a_counted_loop_is_counted_once(opened) -> None:
    """Breaks if the passes of device.train are counted by the loop around it too."""
    plain, around = opened(*OFF), opened(*OFF)
    plain.train()
    with around.counted():
        around.train()
    assert around.report().macs_done == plain.report().macs_done


def test_weights_may_be_set_by_hand_beside_what_is_counted(opened) -> None:
    """Breaks if a head cannot be started anew, or weights averaged, in the same block as the training."""
    device = opened(*OFF)
    with device.counted():
        torch.nn.init.zeros_(list(device.model.parameters())[-1])
        device.train()
        with torch.no_grad():
            next(device.model.parameters()).mul_(0.99)
    assert device.report().macs_done == device.report().macs_dense


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"seen": 2, "kept": 3, "loss": 0.1}, UserError),
        ({"seen": 2, "kept": -1, "loss": 0.1}, UserError),
        ({"seen": 2, "loss": -0.5}, UserError),
        ({"seen": 2, "loss": float("nan")}, DeviceFailure),
        ({"seen": 2, "loss": torch.tensor(float("inf"))}, DeviceFailure),
    ],
)
def test_what_a_loop_tells_must_be_possible(opened, told: dict, error: type) -> None:
    """Breaks if more is kept than was seen, or if a diverged loop is reported as trained."""
    device = opened(*OFF)
    with pytest.raises(error), device.counted() as count:
        count.step(**told)


OPTIMIZERS = {
    "sgd": (partial(torch.optim.SGD, lr=1e-3), 0),
    "momentum": (partial(torch.optim.SGD, lr=1e-3, momentum=0.9), 1),
    "rmsprop": (partial(torch.optim.RMSprop, lr=1e-3), 1),
    "adam": (torch.optim.Adam, 2),
    "adamw": (torch.optim.AdamW, 2),
    "amsgrad": (partial(torch.optim.Adam, amsgrad=True), 3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_memory_is_asked_for_the_optimizer_that_runs(opened, name: str) -> None:
    """Breaks if a device is said to hold Adam's state in the room of plain SGD's."""
    make, copies = OPTIMIZERS[name]
    device, own, told = opened(*OFF), opened(*OFF), opened(*OFF)
    optimizer = make(own.model.parameters())
    assert state_copies(optimizer) == copies
    device.train(optimizer=make)
    with own.counted() as count:
        own_loop(own, optimizer, count)
    with told.counted(make(told.model.parameters())):
        pass
    asked = device.training
    peak = peak_bytes(device.model, asked, asked.batch_size, device.shard.shape, copies)
    expected = int(device.plan.limits.overhead * peak)
    assert device.report().memory_bytes == told.report().memory_bytes == expected
    momentum = int(
        device.plan.limits.overhead * peak_bytes(device.model, asked, asked.batch_size, device.shard.shape)
    )
    assert own.report().memory_bytes == max(expected, momentum)


WIDE = (
    "model.name=resnet8",
    "model.factory.epochs=0",
    "data.partition={kind='iid'}",
    "training.batch_size=64",
)


def tight(opened, monkeypatch, copies: int, batch_size: int, *changes: str) -> Device:
    """A device that just holds that optimizer and batch, of a network in which maps outweigh weights."""
    device = opened(*OFF, *WIDE, *changes)
    peak = peak_bytes(device.model, device.training, batch_size, device.shard.shape, copies)
    room = int(device.plan.limits.overhead * peak)
    monkeypatch.setattr(type(device.profile), "memory_bytes", property(lambda self: room))
    return device


def test_an_optimizer_that_does_not_fit_declines(opened, monkeypatch) -> None:
    """Breaks if a device runs Adam in a loop of its own though it holds SGD's state only."""
    device = tight(opened, monkeypatch, 1, 64)
    with pytest.raises(DeviceFailure) as caught, device.counted() as count:
        own_loop(device, adam(device.model.parameters()), count)
    assert caught.value.status is Status.DOES_NOT_FIT
    device = tight(opened, monkeypatch, 1, 64)
    with pytest.raises(DeviceFailure), device.counted(adam(device.model.parameters())):
        pass
    with pytest.raises(DeviceFailure):
        device.train(optimizer=adam)


def test_batches_larger_than_planned_are_held_against_memory(opened, monkeypatch) -> None:
    """Breaks if a loop over batches of its own size escapes the limit that the plan's batch was fitted to."""
    device = tight(opened, monkeypatch, 1, 64)
    x_NCHW = torch.cat([x_BCHW for x_BCHW, _ in device.batches(0)])
    assert len(x_NCHW) > 64
    with pytest.raises(DeviceFailure, match="batches of"), device.counted():
        device.model(x_NCHW)


def test_a_shrunk_plan_gives_smaller_batches(opened, monkeypatch) -> None:
    """Breaks if device.batches() goes on with the planned batch where the device could only be fitted a smaller one."""
    device = tight(opened, monkeypatch, 2, 32, "limits.memory=shrink")
    with device.counted(adam(device.model.parameters())):
        assert max(len(y_B) for _, y_B in device.batches(0)) == device.training.batch_size == 32


def test_an_optimizer_of_ones_own_works_with_every_method(opened) -> None:
    """Breaks if Adam cannot be had together with a filter and error maps."""
    device = opened(OFF[0])
    pruner = ErrorMapPruner(device.model, keep=0.5)
    device.train(optimizer=adam, instance_filter=RandomFilter(keep=0.5), error_maps=pruner)
    report = device.report()
    assert report.samples_kept < 0.6 * report.samples_seen
    assert report.macs_done < 0.6 * report.macs_dense
    assert (report.word("optimizer"), report.word("instance_filter")) == ("adam", "random")


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: "adam",
        lambda parameters: torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1),
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1),
        "adam",
    ],
)
def test_what_makes_no_optimizer_of_the_network_is_refused(opened, make) -> None:
    """Breaks if a stale optimizer trains nothing and the round is reported as trained."""
    with pytest.raises(UserError, match=r"lambda parameters|torch\.optim\.Optimizer"):
        opened(*OFF).train(optimizer=make)


def test_an_optimizer_of_before_the_cut_is_refused_in_a_loop(opened) -> None:
    """Breaks if a loop goes on with the optimizer of the uncut network, which trains what the cut left alone."""
    device = opened(*OFF[1:])
    optimizer = adam(device.model.parameters())
    device.prune()
    with pytest.raises(UserError, match="before it was cut"), device.counted() as count:
        own_loop(device, optimizer, count)
