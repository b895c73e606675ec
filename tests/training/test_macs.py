"""MAC counting: by hand, and by torch's own counter."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedge.errors import UserError
from fedge.models import build
from fedge.training.macs import BackwardCost, count_macs

torch.set_num_threads(1)


def test_lenet_by_hand():
    """If this fails, every saving reported for LeNet is wrong."""
    table = count_macs(build("lenet", num_classes=10, in_channels=1, image_size=28), (1, 28, 28))
    conv1, conv2, hidden, head = 24 * 24 * 20 * 25, 8 * 8 * 50 * 20 * 25, 800 * 500, 500 * 10
    assert [layer.forward for layer in table.layers] == [conv1, conv2, hidden, head]
    assert table.layers[0].error_propagation == 0  # nobody needs the gradient of the images
    assert table.weight_gradient == table.forward
    assert table.training == 3 * table.forward - conv1


@pytest.mark.parametrize("name", ["lenet", "resnet8", "alexnet", "vgg11", "squeezenet", "har_cnn"])
def test_a_training_step_costs_what_flop_counter_mode_says(name):
    """If this fails, the cost of some family is not what runs."""
    shape = {"lenet": (1, 28, 28), "har_cnn": (9, 1, 128)}.get(name, (3, 32, 32))
    model = build(name, num_classes=6, in_channels=shape[0], image_size=shape[1:])
    x, y = torch.randn(4, *shape), torch.randint(0, 6, (4,))
    with FlopCounterMode(display=False) as judge:
        F.cross_entropy(model(x), y).backward()
    assert 4 * count_macs(model, shape).training == pytest.approx(judge.get_total_flops() / 2, rel=0.01)


def test_grouped_convolutions_cost_a_group_each():
    """If this fails, depthwise networks are charged for products that they do not make.

    torch's counter charges a grouped weight gradient `groups` times too much, so it is no judge here.
    """
    table = count_macs(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8)), (8, 5, 5))
    assert table.layers[0].weight_gradient == table.forward == 5 * 5 * 8 * 9


def test_frozen_layers_and_layers_used_twice():
    """If this fails, fine-tuning or weight sharing is charged wrongly."""
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert count_macs(model, (4,)).layers[0].forward == 32
    assert count_macs(model, (4,)).error_propagation == 16
    shared.weight.requires_grad_(False)
    assert count_macs(model, (4,)).weight_gradient == 0


def test_counting_leaves_the_model_as_it_was():
    """If this fails, looking at a model's cost changes its training."""
    model = build("resnet8", num_classes=3, in_channels=1, image_size=16).train()
    model.stem.eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    count_macs(model, (1, 16, 16))
    assert model.training
    assert not model.stem.training
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_cannot_be_counted_is_refused():
    """If this fails, a missing cost passes for a saving."""
    with pytest.raises(UserError, match="LSTM"):
        count_macs(nn.Sequential(nn.LSTM(3, 4)), (5, 3))


def test_costs_add_and_subtract():
    """If this fails, sums over steps are wrong."""
    a, b = BackwardCost(3, 4, 5), BackwardCost(1, 1, 2)
    assert (a + b) - b == a
    assert a.macs == 7
