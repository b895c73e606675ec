"""The shape of the step that really runs."""

import pytest
import torch
from torch import nn

from fedge.models import build
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.loop import train
from fedge.training.macs import count_macs
from fedge.training.pruning.one_shot import prune
from fedge.training.time.shape import step_shape
from fedge.training.update.what import freeze

SHAPE = (3, 16, 16)


class Mixed(nn.Sequential):
    """A strided, a depthwise and a pointwise convolution, and a linear layer."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 16, 1),
            nn.Flatten(),
            nn.Linear(16 * 8 * 8, 5),
        )


def test_layers_are_told_by_their_shapes() -> None:
    """Breaks if a stride, groups or the first layer's missing error are lost: another step would be predicted."""
    step = step_shape(Mixed(), SHAPE, 4)
    first, depthwise, pointwise, linear = step.layers
    assert (first.in_channels, first.out_channels, first.kernel, first.read, first.written) == (
        3,
        8,
        9,
        256,
        64,
    )
    assert (first.error_propagation, depthwise.groups, depthwise.width) == (0, 8, 1)
    assert (pointwise.kernel, pointwise.maps) == (1, 64 * 24)
    assert (linear.in_channels, linear.out_channels, linear.written, linear.convolution) == (
        1024,
        5,
        1,
        False,
    )
    # norm, its counter, the activation and no product: of 8 x 8 x 8 numbers each, but for the counter's one of two rows
    assert step.elements == pytest.approx(2 * 512, rel=0.01)
    assert step.operators == 4 + 3


def test_its_products_are_the_mac_table_s() -> None:
    """Breaks if time is asked of a network other than the one that is charged: cut, frozen, with loose products."""
    model = build("resnet8", num_classes=10, in_channels=3, image_size=16)
    prune(model, 0.5, example_input=torch.zeros(1, *SHAPE))
    assert step_shape(model, SHAPE, 7).macs == 7 * count_macs(model, SHAPE).training
    freeze(model, "last", SHAPE)
    frozen = step_shape(model, SHAPE, 7)
    assert frozen.macs == 7 * count_macs(model, SHAPE).training
    assert frozen.trained < frozen.parameters
    attention = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    assert step_shape(attention, (6, 8), 3).macs == 3 * count_macs(attention, (6, 8)).training


@pytest.mark.parametrize("keep", [0.25, 1.0])
def test_it_is_the_step_that_ran(keep: float) -> None:
    """Breaks if what pruned error maps left is not what is priced: the counted products, whatever the settings said."""
    model = Mixed()
    x_BCHW, y_B = torch.randn(6, *SHAPE), torch.zeros(6, dtype=torch.long)
    pruner = ErrorMapPruner(model, keep=keep) if keep < 1 else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    stats = train(model, [(x_BCHW, y_B)], optimizer=optimizer, error_maps=pruner)
    backward = stats.macs_error_propagation + stats.macs_weight_gradient
    step = step_shape(model, SHAPE, 6).with_backward(backward)
    assert step.keep == pytest.approx(keep)
    assert step.macs == pytest.approx(stats.macs_done)


def test_asking_leaves_no_trace() -> None:
    """Breaks if a forecast changes running statistics, modes or hooks of a device's network."""
    model = Mixed().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step_shape(model, SHAPE, 4)
    assert not model.training and not any(layer._forward_hooks for layer in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
