"""What a loop of a program's own is charged for: the passes that really ran, and no others."""

import pytest
import torch
import torch.nn.functional as F

from fedge.device.device import Device
from fedge.errors import UserError
from fedge.training.macs import count_macs

OFF = ("training.pruning.level=0", "training.instance_filter.kind=none", "training.error_maps.keep=1.0")


def adam(parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def by_layers(device: Device, x_BCHW: torch.Tensor) -> torch.Tensor:
    for layer in device.model.children():
        x_BCHW = layer(x_BCHW)
    return x_BCHW


def by_forward(device: Device, x_BCHW: torch.Tensor) -> torch.Tensor:
    return device.model.forward(x_BCHW)


@pytest.mark.parametrize("passes", [by_layers, by_forward])
@pytest.mark.parametrize("told", [True, False])
def test_layers_called_by_themselves_are_counted(opened, passes, told: bool) -> None:
    """Breaks if a loop that calls the network's layers, or its forward, trains for the price of one look."""
    device = opened(*OFF)
    table, optimizer = count_macs(device.model, device.shard.shape), adam(device.model.parameters())
    with device.counted() as count:
        with torch.no_grad():
            device.model(next(iter(device.batches(0)))[0][:1])
        for x_BCHW, y_B in device.batches(0):
            optimizer.zero_grad()
            loss = F.cross_entropy(passes(device, x_BCHW), y_B)
            loss.backward()
            optimizer.step()
            if told:
                count.step(seen=len(y_B), loss=loss)
    report = device.report()
    assert report.macs_done == len(device.shard) * table.training + table.forward
    assert report.samples_kept == len(device.shard)


def test_a_head_trained_on_features_that_were_kept_costs_the_head(opened) -> None:
    """Breaks if the epochs after the first, which never call the whole network, are free."""
    device = opened(*OFF)
    *layers, head = device.model.children()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    with device.counted() as count:
        with torch.no_grad():
            kept = [(torch.nn.Sequential(*layers)(x_BCHW), y_B) for x_BCHW, y_B in device.batches(0)]
        for features_BF, y_B in kept * 2:
            optimizer.zero_grad()
            loss = F.cross_entropy(head(features_BF), y_B)
            loss.backward()
            optimizer.step()
            count.step(seen=len(y_B), loss=loss)
    of_head = head.in_features * head.out_features
    forward = count_macs(device.model, device.shard.shape).forward - of_head
    assert device.report().macs_done == len(device.shard) * (forward + 2 * 2 * of_head)


def on_bare_weights(device: Device, count) -> None:
    x_BCHW, y_B = next(iter(device.batches(0)))
    device.model(x_BCHW[:1])
    other = device.prepared.build_model()
    F.cross_entropy(other(x_BCHW), y_B).backward()
    device.model.load_state_dict(other.state_dict())
    count.step(seen=len(y_B), loss=1.0)


def nothing_at_all(device: Device, count) -> None:
    count.step(seen=40, loss=0.3)


def silently(device: Device, count) -> None:
    device.model(next(iter(device.batches(0)))[0])
    with torch.no_grad():
        next(device.model.parameters()).mul_(0.5)


@pytest.mark.parametrize("loop", [on_bare_weights, nothing_at_all, silently])
def test_what_is_said_to_be_trained_must_have_been_seen(opened, loop) -> None:
    """Breaks if samples are reported as trained on that no counted pass saw, or weights that changed beside a look."""
    device = opened(*OFF)
    with pytest.raises(UserError, match="nothing was counted"):
        with device.counted() as count:
            loop(device, count)
        device.report()


@pytest.mark.parametrize("told", [{"seen": "4"}, {"seen": 2.5}, {"seen": 4, "kept": 0.5}])
def test_samples_are_whole_numbers(opened, told: dict) -> None:
    """Breaks if half a sample is rounded away without a word, or ends in a traceback."""
    device = opened(*OFF)
    with pytest.raises(UserError, match="whole number of samples"), device.counted() as count:
        count.step(loss=0.1, **told)
