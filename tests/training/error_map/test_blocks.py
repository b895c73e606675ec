"""What a pruner attached to a model does to its layers, and that it leaves no trace."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.models import build
from fedge.training.error_map.pruner import ErrorMapPruner
from tests.training.networks import Scaled


def test_layers_added_or_replaced_inside_are_run():
    """If this fails, a network that is changed while error maps are pruned goes on as the old one."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU())
    with ErrorMapPruner(model, keep=0.5):
        model[2] = nn.Tanh()
        model.append(nn.Flatten())
        out = model(torch.randn(2, 1, 3, 3))
    assert out.shape == (2, 18)
    assert out.min() < 0


def test_it_leaves_no_trace():
    """If this fails, a model that has been trained with the pruner is no longer the user's own."""
    model = build("resnet8", num_classes=10, in_channels=3, image_size=16)
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    keys = list(model.state_dict())
    with pytest.raises(ZeroDivisionError), ErrorMapPruner(model) as pruner:
        assert list(model.state_dict()) == keys
        raise ZeroDivisionError
    assert not pruner.entered
    assert not model._forward_hooks
    for name, module in model.named_modules():
        assert module.__dict__.keys() == before[name].keys()


class ScaledKernel(nn.Conv2d):
    """Another kernel in PyTorch's own forward."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, 3 * weight, bias)


class Shifted(nn.BatchNorm2d):
    """A norm with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 1 + super().forward(x)


@pytest.mark.parametrize("kind", [Scaled, ScaledKernel])
def test_a_forward_of_a_subclass_is_left_alone(kind):
    """If this fails, a layer that computes something else is silently turned into a plain one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), Shifted(4), nn.ReLU(), kind(4, 4, 3)).double()
    x = torch.randn(2, 2, 7, 7).double()
    expected = model(x)
    with ErrorMapPruner(model, keep={"0": 0.5}) as pruner:
        out = model(x)
        out.sum().backward()
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    assert pruner.cost.macs == 2 * (2 * 5 * 5) * (2 * 9) + 2 * (2 * 4 * 3 * 3) * (4 * 9)


@pytest.mark.parametrize("layer", [nn.Conv1d(4, 4, 3), nn.Conv3d(4, 4, 3), Scaled(4, 4, 3)])
def test_convolutions_that_cannot_be_pruned_are_refused(layer):
    """If this fails, a network is trained densely by somebody who asked for error maps."""
    with pytest.raises(UserError, match="'0' is no Conv2d"):
        ErrorMapPruner(nn.Sequential(layer, nn.Conv2d(4, 4, 3)), keep=0.5)
    assert ErrorMapPruner(nn.Sequential(layer), keep=1).keep["0"] == 1


def test_a_model_with_a_pruner_is_refused_to_a_second():
    """If this fails, both count the same products, or one hides the other."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3))
    second = ErrorMapPruner(model)
    with ErrorMapPruner(model), pytest.raises(UserError, match="'0' is replaced already"):
        second.__enter__()
    assert not second.entered
    assert "forward" not in model[0].__dict__


def test_a_copy_made_inside_is_pruned_by_its_own_weights():
    """If this fails, a copy of the best model so far, made while training, follows the model it was copied from."""
    model, x = nn.Sequential(nn.Conv2d(2, 4, 3)), torch.randn(2, 2, 6, 6)
    with ErrorMapPruner(model, keep=0.5):
        other = copy.deepcopy(model)
        nn.init.zeros_(other[0].weight)
        other(x).sum().backward()
    assert (other(x) == other[0].bias[:, None, None]).all()
    assert model[0].weight.grad is None


def test_a_layer_may_be_called_by_keyword():
    """If this fails, `layer(input=x)`, which PyTorch allows, ends in a TypeError while a pruner is attached."""
    layer, x = nn.Conv2d(2, 4, 3), torch.randn(2, 2, 6, 6)
    with ErrorMapPruner(layer, keep=0.5):
        assert torch.equal(layer(input=x), layer(x))
