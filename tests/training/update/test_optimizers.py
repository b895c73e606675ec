"""An optimizer trains the model that it was made for, as it is now."""

import pytest
import torch
from torch import nn

from fedge.errors import UserError
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.loop import train
from fedge.training.pruning import prune
from fedge.training.quantization import Quantization

X, Y = torch.randn(12, 1, 6, 6), torch.arange(12) % 3


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_made_before_the_cut_is_refused(kind):
    """If this fails, most of a pruned network stays as it was, and steps are reported."""
    model = small()
    optimizer = kind(model.parameters(), lr=0.01)
    train(model, [(X, Y)], optimizer=optimizer)
    prune(model, 0.3, example_input=X[:2])
    with pytest.raises(UserError, match=r"parameters that the optimizer holds are not the model's"):
        train(model, [(X, Y)], optimizer=optimizer)
    train(model, [(X, Y)], optimizer=kind(model.parameters(), lr=0.01))


def test_an_optimizer_of_another_model_or_of_more_than_the_model_is_refused():
    """If this fails, another network is trained than the one whose cost is reported."""
    model, other = small(), small()
    both = torch.optim.SGD([*model.parameters(), *other[4].parameters()], 0.01)
    for optimizer, text in ((torch.optim.SGD(other.parameters(), 0.01), "6 of the 6"), (both, "2 of the 8")):
        with pytest.raises(UserError, match=text):
            train(model, [(X, Y)], optimizer=optimizer)


def test_an_optimizer_of_a_part_of_the_model_trains_that_part():
    """If this fails, a head cannot be trained alone."""
    model = small()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    train(model, [(X, Y)], optimizer=torch.optim.SGD(model[4].parameters(), 0.01))
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert moved == [False, False, False, False, True, True]


def test_momentum_of_another_shape_is_refused():
    """If this fails, weights cut in place end in an error of the optimizer's arithmetic."""
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    train(model, [(X, Y)], optimizer=optimizer)
    model[4].weight.data = torch.randn(2, 128)
    model[4].bias.data = torch.zeros(2)
    with pytest.raises(UserError, match="remembers gradients of another shape"):
        train(model, [(X, Y % 2)], optimizer=optimizer)


@pytest.mark.parametrize("method", [ErrorMapPruner, Quantization])
def test_a_method_attached_to_layers_that_are_gone_is_refused(method):
    """If this fails, new layers train densely, and their backward pass costs nothing."""
    model = small()
    name = {ErrorMapPruner: "error_maps", Quantization: "quantization"}[method]
    with method(model) as attached:
        model[0] = nn.Conv2d(1, 8, 3)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        with pytest.raises(UserError, match="layers that it no longer has"):
            train(model, [(X, Y)], optimizer=optimizer, **{name: attached})
