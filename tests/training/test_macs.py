"""MAC counting: by hand, and by torch's own counter."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedge.models import MODELS, build
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.macs import BackwardCost, count_macs
from fedge.training.pruning.one_shot import prune
from tests.training.judge import judged_macs
from tests.training.networks import with_slow

SHAPES = {"lenet": (1, 28, 28), "har_cnn": (9, 1, 128)}  # others: (3, 32, 32)
EVERY_MODEL = with_slow(MODELS)


def example(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    shape = SHAPES.get(name, (3, 32, 32))
    model = build(name, num_classes=6, in_channels=shape[0], image_size=shape[1:])
    return model, torch.randn(2, *shape), torch.randint(0, 6, (2,))


def test_lenet_by_hand():
    """If this fails, every saving reported for LeNet is wrong."""
    table = count_macs(build("lenet", num_classes=10, in_channels=1, image_size=28), (1, 28, 28))
    conv1, conv2, hidden, head = 24 * 24 * 20 * 25, 8 * 8 * 50 * 20 * 25, 800 * 500, 500 * 10
    assert [layer.forward for layer in table.layers] == [conv1, conv2, hidden, head]
    assert table.layers[0].error_propagation == 0  # nobody needs the gradient of the images
    assert table.weight_gradient == table.forward
    assert table.training == 3 * table.forward - conv1


@pytest.mark.parametrize("grouped", [False, True])
def test_the_judge_differs_from_torchs_counter_in_grouped_weight_gradients_only(grouped):
    """If this fails, the judge of the tests below is no longer torch's own where torch is right."""
    groups, macs = (4, 5 * 5 * 8 * 2 * 9) if grouped else (1, 5 * 5 * 8 * 8 * 9)
    layer, x = nn.Conv2d(8, 8, 3, padding=1, groups=groups), torch.randn(1, 8, 5, 5, requires_grad=True)
    assert judged_macs(lambda: layer(x).sum()) == 3 * macs
    with FlopCounterMode(display=False) as torchs_own:
        layer(x).sum().backward()
    assert torchs_own.get_total_flops() / 2 == (2 + groups) * macs


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_a_training_step_costs_what_flop_counter_mode_says(name):
    """If this fails, the cost of some family is not what runs."""
    model, x, y = example(name)
    macs = len(x) * count_macs(model, x.shape[1:]).training
    assert macs == pytest.approx(judged_macs(lambda: F.cross_entropy(model(x), y)), rel=0.01)


class Columns(nn.Module):
    """A linear layer on every column: one instance is eight rows to it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.column, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(64, 6), nn.Linear(48, 3)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        column_NF = self.conv(x_BCHW).transpose(1, 3).flatten(2).flatten(0, 1)
        return self.head(self.column(column_NF).view(len(x_BCHW), -1))


def test_a_layer_that_sees_an_instance_as_several_costs_what_flop_counter_mode_says():
    """If this fails, a network that folds an axis into the batch is undercounted, and then refused."""
    x, model = torch.randn(2, 1, 8, 8), Columns()
    table = count_macs(model, x.shape[1:])
    assert table.forward == 8 * 8 * 8 * 9 + 8 * 64 * 6 + 48 * 3
    assert len(x) * table.training == judged_macs(lambda: model(x).sum())


@pytest.mark.parametrize("name", EVERY_MODEL)
@pytest.mark.parametrize("keep", [0.25, 1.0])
def test_a_backward_pass_through_error_maps_costs_what_flop_counter_mode_says(name, keep):
    """If this fails, a report's cost under error maps is not what ran."""
    model, x, y = example(name)
    with ErrorMapPruner(model, keep) as pruner:
        loss = F.cross_entropy(model(x), y)
        backward = judged_macs(lambda: loss)
    assert pruner.cost.macs == pytest.approx(backward, rel=0.01)


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_a_pruned_network_costs_what_flop_counter_mode_says(name):
    """If this fails, a report's cost after pruning is not what ran."""
    model, x, y = example(name)
    prune(model, 0.5, example_input=x[:1], criterion="random")
    macs = len(x) * count_macs(model, x.shape[1:]).training
    assert macs == pytest.approx(judged_macs(lambda: F.cross_entropy(model(x), y)), rel=0.01)


def test_grouped_convolutions_cost_a_group_each():
    """If this fails, depthwise networks are charged for products that they do not make."""
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


def test_models_in_double_and_layers_called_by_keyword():
    """If this fails, a network that PyTorch runs cannot be counted, nor trained here."""

    class ByKeyword(nn.Conv2d):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return super().__call__(input=x)

    model = nn.Sequential(ByKeyword(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)).double()
    assert count_macs(model, (1, 4, 4)).forward == 4 * 2 * 9 + 16


def test_costs_add_and_subtract():
    """If this fails, sums over steps are wrong."""
    a, b = BackwardCost(3, 4, 5), BackwardCost(1, 1, 2)
    assert (a + b) - b == a
    assert a.macs == 7
