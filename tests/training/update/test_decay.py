"""The learning rate falls as the settings say."""

import pytest
import torch
from torch import nn

from fedge.training.update.decay import Decay, cosine, steps


def rates(curve, *, epochs: int, batches: int) -> list[float]:
    """The rate at each of the mini-batches of one run."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.2)
    decay, seen = Decay(optimizer, curve), []
    x, y = torch.zeros(1, 1), torch.zeros(1)
    for epoch in range(epochs):
        span = {"count": batches, "start": epoch / epochs, "end": (epoch + 1) / epochs}
        seen += [optimizer.param_groups[0]["lr"] for _ in decay.over([(x, y)] * batches, **span)]
    return seen


@pytest.mark.parametrize("least", [0.0, 0.25])
def test_cosine_is_pytorchs(least):
    """If this fails, a run follows another schedule than the one that users know by this name."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12, eta_min=0.2 * least)
    expected = []
    for _ in range(12):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates(cosine(least), epochs=3, batches=4) == pytest.approx(expected)


def test_steps_fall_where_they_are_reached():
    """If this fails, the rate falls an epoch early or late."""
    seen = rates(steps([0.5, 0.75], 0.1), epochs=2, batches=4)
    assert seen == pytest.approx([0.2] * 4 + [0.02] * 2 + [0.002] * 2)


def test_groups_keep_their_own_rates():
    """If this fails, an optimizer with a slower trunk ends with one rate for all."""
    layers = nn.Linear(1, 1), nn.Linear(1, 1)
    groups = [
        {"params": layer.parameters(), "lr": rate} for layer, rate in zip(layers, (0.1, 0.4), strict=True)
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    batches = [(torch.zeros(1, 1), torch.zeros(1))] * 2
    for _ in Decay(optimizer, steps([0.5], 0.5)).over(batches, count=2, start=0.0, end=1.0):
        pass
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.2]
