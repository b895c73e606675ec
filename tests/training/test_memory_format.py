"""The memory order in which pictures are handed to a network."""

import copy

import pytest
import torch
from torch import nn

from fedge.models import build
from fedge.training.memory_format import MAPS_PER_WEIGHT, fast_order, maps_per_weight


def test_maps_and_weights_counted_by_hand():
    """If this fails, the rule weighs something else than what it says."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),  # reads 3 x 36, writes 4 x 36; 108 weights
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 1, stride=3),  # reads 4 x 9, writes 8 x 1; 32 weights
        nn.Flatten(),
        nn.Linear(8, 1000),
    )
    assert maps_per_weight(model, 5, (3, 6, 6)) == 5 * (3 * 36 + 4 * 36 + 4 * 9 + 8) / (108 + 32)


def test_a_layer_called_twice_and_by_keyword_counts_twice():
    """If this fails, networks that share a layer, or name its input, are misjudged or crash."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1, bias=False)

        def forward(self, x):
            return self.conv(input=self.conv(x)).mean((2, 3))

    assert maps_per_weight(Shared(), 1, (2, 5, 5)) == 2 * (50 + 50) / (2 * 4)


@pytest.mark.parametrize(
    ("name", "batch_size", "order"),
    [
        ("resnet20", 8, torch.channels_last),
        ("resnet20", 1, torch.contiguous_format),
        ("alexnet", 32, torch.contiguous_format),  # channels last takes 1.3 times as long there
        ("vgg11", 8, torch.contiguous_format),
        ("vgg11", 128, torch.channels_last),
    ],
)
def test_the_order_is_that_measured_to_be_faster(name, batch_size, order):
    """If this fails, devices train these networks in the slower order (benchmarks/results/memory_format.md)."""
    model = build(name, num_classes=10, in_channels=3, image_size=32)
    assert fast_order(model, batch_size, (3, 32, 32)) is order


def test_the_rule_turns_at_its_threshold():
    """If this fails, the threshold is not what the docs say."""
    model = nn.Conv2d(3, 1, 1)  # reads 3 numbers, writes 1; 3 weights
    most = next(batch for batch in range(1, 9) if batch * 4 / 3 >= MAPS_PER_WEIGHT)
    assert fast_order(model, most, (3, 1, 1)) is torch.channels_last
    assert fast_order(model, most - 1, (3, 1, 1)) is torch.contiguous_format


def test_a_network_without_convolutions_keeps_pytorchs_own_order():
    """If this fails, a linear model's x.view() breaks, or the rule divides by zero."""
    assert fast_order(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), 64, (3, 2, 2)) is torch.contiguous_format


def test_the_model_comes_back_as_it_was():
    """If this fails, asking changes running statistics, modes, gradients or random numbers, and so the training."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    fast_order(model, 4, (3, 8, 8))
    assert model.training and all(layer.training and not layer._forward_hooks for layer in model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model[0].weight.grad is None and torch.equal(torch.get_rng_state(), random)
