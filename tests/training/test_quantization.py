"""Quantised training, simulated: the rounding, the two copies of the error, and what it counts."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from fedge.errors import UserError
from fedge.models import build
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.macs import BackwardCost
from fedge.training.quantization import Quantization, quantize
from tests.training.networks import Scaled


def test_rounding_by_hand():
    """If this fails, 8 bits are not 8 bits."""
    value = torch.tensor([0.0, 0.9, 1.1, 3.0])
    torch.testing.assert_close(quantize(value, 2), torch.tensor([0.0, 1.0, 1.0, 3.0]))
    assert len(quantize(torch.randn(5000), 8).unique()) <= 256
    constant = torch.full((3,), 7.0)
    assert torch.equal(quantize(constant, 8), constant)


def test_stochastic_rounding_keeps_the_mean():
    """If this fails, small errors are rounded away for good and training stalls."""
    value = torch.cat([torch.tensor([0.0, 1.0]), torch.full((20_000,), 0.1)])
    rounded = quantize(value, 1, torch.Generator().manual_seed(0))
    assert set(rounded.unique().tolist()) <= {0.0, 1.0}
    assert rounded[2:].mean().item() == pytest.approx(0.1, abs=0.01)
    assert quantize(value, 1)[2:].sum() == 0


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 5, 3, bias=False), nn.Linear(6, 4, bias=False)])
def test_weights_inputs_and_both_error_copies_are_rounded(layer):
    """If this fails, some factor of the three products is still float, or the bifurcation is gone."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6) if isinstance(layer, nn.Conv2d) else torch.randn(2, 6)
    x.requires_grad_()
    model = nn.Sequential(layer)
    error = torch.randn_like(model(x))
    with Quantization(model, bits=4, weight_gradient_bits=24) as method:
        out = model(x)
        method.generator.manual_seed(1)
        out.backward(error)
    x4, w4 = quantize(x.detach(), 4).requires_grad_(), quantize(layer.weight.detach(), 4).requires_grad_()
    product = F.conv2d(x4, w4) if isinstance(layer, nn.Conv2d) else F.linear(x4, w4)
    torch.testing.assert_close(out, product)
    (grad_w,) = torch.autograd.grad(product, w4, error, retain_graph=True)
    torch.testing.assert_close(layer.weight.grad, grad_w, rtol=1e-4, atol=1e-4)  # 24 bits: nearly exact
    error4 = quantize(error, 4, torch.Generator().manual_seed(1))
    (grad_x,) = torch.autograd.grad(product, x4, error4)
    torch.testing.assert_close(x.grad, grad_x, rtol=1e-5, atol=1e-5)
    assert isinstance(layer.weight, nn.Parameter)


@pytest.mark.parametrize("range_norm", [False, True])
def test_it_learns_and_leaves_no_trace(range_norm):
    """If this fails, quantised training does not train, or the model is no longer the user's own."""
    model = build("resnet8", num_classes=2, in_channels=1, image_size=16, seed=1)
    keys = {name: set(module.__dict__) for name, module in model.named_modules()}
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (32,), generator=generator)
    x = torch.randn(32, 1, 16, 16, generator=generator) + y[:, None, None, None]
    losses = []
    with Quantization(model, range_norm=range_norm):
        for _ in range(12):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert {name: set(module.__dict__) for name, module in model.named_modules()} == keys


def test_range_norm_normalises():
    """If this fails, Range-BN's constant is wrong: activations grow or shrink layer by layer."""
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(norm)
    x = 5 + 3 * torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with Quantization(model, range_norm=True):
        out = model(x)
    assert out.mean().abs() < 0.01
    assert out.std().item() == pytest.approx(1, abs=0.35)
    assert (norm.running_mean - 0.5).abs().max() < 0.05


def test_with_error_maps_the_dropped_stay_dropped():
    """If this fails, quantisation undoes the saving of error-map pruning."""
    model = build("resnet8", num_classes=2, in_channels=1, image_size=16)
    x, y = torch.randn(4, 1, 16, 16), torch.tensor([0, 1, 0, 1])
    method, pruner = Quantization(model), ErrorMapPruner(model, keep=0.25)
    with method.over(pruner):
        assert pruner.entered
        F.cross_entropy(model(x), y).backward()
        kept = pruner.kept["stem.conv"]
    rows = model.stem.conv.weight.grad.abs().sum((1, 2, 3))
    assert rows.nonzero().flatten().tolist() == kept.tolist()
    assert pruner.roundings is None
    assert not (method.entered or pruner.entered)


def test_bit_operations_by_hand():
    """If this fails, the +Q rows claim a saving that is none."""
    method = Quantization(nn.Sequential(nn.Linear(1, 1)))
    assert method.bit_operations(10, BackwardCost(5, 2)) == 10 * 64 + 5 * 64 + 2 * 128


@pytest.mark.parametrize("options", [{"bits": 1}, {"bits": 20}, {"bits": 8, "weight_gradient_bits": 4}])
def test_wrong_options_are_refused(options):
    """If this fails, a wrong scenario trains silently."""
    with pytest.raises(UserError):
        Quantization(nn.Sequential(nn.Linear(1, 1)), **options)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(1, 1, 1),
        nn.Conv3d(1, 1, 1),
        Scaled(1, 1, 1),
        parametrizations.weight_norm(nn.Conv2d(1, 1, 1)),
    ],
)
def test_layers_that_would_stay_float_are_refused(layer):
    """If this fails, products in 32 bits are charged as products in 8."""
    with pytest.raises(UserError, match=type(layer).__name__):
        Quantization(nn.Sequential(layer))


def test_methods_that_are_attached_or_of_another_model_are_refused():
    """If this fails, a second method silently takes the place of the first, or rounds nothing."""
    model = build("lenet", num_classes=2, in_channels=1, image_size=16)
    method = Quantization(model)
    with pytest.raises(UserError, match="another model"), method.over(ErrorMapPruner(nn.Linear(1, 1))):
        pass
    with ErrorMapPruner(model), pytest.raises(UserError, match="replaced already"), method:
        pass
    assert not method.entered
    with method, pytest.raises(UserError, match="attached already"), method:
        pass
    assert not method.entered
    assert "forward" not in model.conv1.__dict__
