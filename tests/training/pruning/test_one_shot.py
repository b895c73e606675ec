"""Pruning cuts what it says it cuts, as much as it was asked to, and leaves everything else alone."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedge.models import build
from fedge.training.pruning.criteria import CRITERIA, Evidence
from fedge.training.pruning.cut import Cut
from fedge.training.pruning.layers import cuttable_layers, is_channelwise
from fedge.training.pruning.ledger import Ledger
from fedge.training.pruning.one_shot import LevelOutOfReachError, choose_units, prune
from fedge.training.pruning.topology import Topology
from fedge.training.pruning.units import find_coupling
from tests.training.networks import (
    DEEP,
    HAND_WRITTEN,
    INPUT_SHAPE,
    RandomNetwork,
    Separable,
    ThreeBranches,
    Tokens,
    parameters,
    shaken,
    with_slow,
)

FAMILIES = {
    "lenet": (1, 28, 28),
    "alexnet": (3, 32, 32),
    "resnet8": (3, 32, 32),
    "resnet20": (3, 32, 32),
    "resnet110": (3, 32, 32),
    "mobilenet_v2": (3, 32, 32),
    "squeezenet": (3, 32, 32),
    "vgg11": (3, 32, 32),
    "vgg16": (3, 32, 32),
    "har_cnn": (9, 1, 128),
}


def family(name: str, seed: int = 0) -> nn.Module:
    channels, *image = FAMILIES[name]
    return build(name, num_classes=100, in_channels=channels, image_size=tuple(image), seed=seed)


def random_cut(model: nn.Module, level: float, input_shape: tuple[int, ...], seed: int) -> Cut:
    spare = copy.deepcopy(model).requires_grad_(True)
    coupling = find_coupling(spare, torch.zeros(1, *input_shape, dtype=next(model.parameters()).dtype))
    score_U = torch.rand(coupling.units, generator=torch.Generator().manual_seed(seed))
    return Cut(coupling, choose_units(score_U, level, Ledger(spare, coupling)))


def with_channels_zeroed(model: nn.Module, cut: Cut) -> nn.Module:
    """A copy that produces 0 in every removed channel: its filters, biases, norm weights and norm biases are 0."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, layer in cuttable_layers(model).items():
            gone_O = ~cut.kept_outputs(name)
            transposed = getattr(layer, "transposed", False)
            if not is_channelwise(layer) and transposed:
                weight_GIOK = layer.weight.unflatten(0, (layer.groups, -1))
                weight_GIOK.transpose(1, 2)[gone_O.view(layer.groups, -1)] = 0
            else:
                layer.weight[gone_O] = 0
            if getattr(layer, "bias", None) is not None:
                layer.bias[gone_O] = 0
    return model


def assert_equals_zeroed(model: nn.Module, cut: Cut, input_shape: tuple[int, ...], tolerance: float) -> None:
    model.eval()
    x_BCHW = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(1)).to(
        next(model.parameters())
    )
    with torch.no_grad():
        expected = with_channels_zeroed(model, cut)(x_BCHW)
        pruned = copy.deepcopy(model)
        cut.apply(pruned)
        assert parameters(pruned) < parameters(model)
        difference = (pruned(x_BCHW) - expected).abs().max() / expected.abs().max().clamp_min(1)
    assert difference <= tolerance


@pytest.mark.parametrize("name", with_slow(FAMILIES))
def test_family_equals_itself_with_channels_zeroed(name):
    """If a cut takes the wrong channel anywhere, the pruned network computes something else than it was ranked for."""
    model = shaken(family(name))
    cut = random_cut(model, 0.4, FAMILIES[name], seed=3)
    assert_equals_zeroed(model, cut, FAMILIES[name], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("level", [0.2, 0.7])
def test_family_equals_itself_in_double_precision(name, level):
    """Nothing but rounding may be between the two: in float64 a wrong channel cannot hide behind it."""
    model = shaken(family(name)).double()
    cut = random_cut(model, level, FAMILIES[name], seed=5)
    assert_equals_zeroed(model, cut, FAMILIES[name], 1e-10)


@pytest.mark.parametrize("make", HAND_WRITTEN)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("level", [0.2, 0.5])
def test_hand_written_equals_itself_with_channels_zeroed(make, dtype, tolerance, level):
    """Concatenation, groups, depthwise, three-way sums, biases, ConvTranspose: each joins channels in its own way."""
    model = shaken(make()).to(dtype)
    assert_equals_zeroed(model, random_cut(model, level, INPUT_SHAPE, seed=1), INPUT_SHAPE, tolerance)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), level=st.floats(0.05, 0.6))
def test_random_networks_equal_themselves_with_channels_zeroed(seed, level):
    """No list of networks is complete; a random one with a random cut must compute the same as its zeroed self."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = shaken(RandomNetwork(seed).double(), seed)
    try:
        cut = random_cut(model, level, INPUT_SHAPE, seed)
    except LevelOutOfReachError:
        return
    if cut.removed_U.any():
        assert_equals_zeroed(model, cut, INPUT_SHAPE, 1e-10)


@pytest.mark.parametrize("name", with_slow(FAMILIES, (*DEEP, "mobilenet_v2", "squeezenet")))
def test_exact_accounting_meets_the_level(name):
    """`level` is a share of parameters; a plan that asks for 0.75 must get 0.75, whatever norms and biases weigh."""
    model, shape = family(name), FAMILIES[name]
    spare = copy.deepcopy(model)
    coupling = find_coupling(spare, torch.zeros(1, *shape))
    score_U = CRITERIA["l1"](Evidence(spare, coupling, None, torch.Generator()))
    for percent in (5, 50, 75, 95):
        cut = Cut(coupling, choose_units(score_U, percent / 100, Ledger(spare, coupling)))
        pruned = copy.deepcopy(model)
        cut.apply(pruned)
        assert 1 - parameters(pruned) / parameters(model) == pytest.approx(percent / 100, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("percent", range(5, 100, 5))
def test_every_level_of_the_paper(name, percent):
    """All of ADaPT's 19 levels through the public function, as a benchmark would call it."""
    model = family(name)
    before = parameters(model)
    left = prune(model, percent / 100, example_input=torch.zeros(1, *FAMILIES[name])).parameters
    assert 1 - left / before == pytest.approx(percent / 100, abs=0.01)


def test_hand_computed_cut():
    """One convolution of four filters, of which the two smallest must go with their columns of the linear layer."""
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[0].weight.data = torch.tensor([4.0, 1.0, 3.0, 2.0]).view(4, 1, 1, 1)
    model[2].weight.data = torch.arange(8.0).view(2, 4)
    topology = prune(model, 0.5, example_input=torch.zeros(1, 1, 1, 1))  # 12 parameters, 3 per channel
    assert model[0].weight.flatten().tolist() == [4.0, 3.0]
    assert model[2].weight.tolist() == [[0.0, 2.0], [4.0, 6.0]]
    assert topology.parameters == 6


def test_level_zero_changes_nothing():
    """Level 0 is dense training; not even a parameter object may change, or an optimizer would lose it."""
    model = family("resnet8")
    before = list(model.parameters())
    topology = prune(model, 0.0, example_input=torch.zeros(1, 3, 32, 32))
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert topology.parameters == parameters(model)


def test_frozen_parameters_are_cut_and_stay_frozen():
    """Torch-Pruning finds no group under requires_grad=False and silently does nothing: a trap."""
    model = ThreeBranches()
    before = parameters(model)
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    prune(model, 0.4, example_input=torch.zeros(1, *INPUT_SHAPE))
    assert parameters(model) < before
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]


def test_works_under_no_grad():
    """Torch-Pruning asserts under no_grad: a trap, since evaluation code around pruning often has it."""
    model = ThreeBranches()
    with torch.no_grad():
        topology = prune(model, 0.4, example_input=torch.zeros(1, *INPUT_SHAPE))
    assert topology.parameters < parameters(ThreeBranches())


def test_training_mode_stays_as_it_was():
    """Torch-Pruning leaves the network in evaluation mode: norms would stop learning, unseen."""
    model = Separable().train()
    model.layers[1].eval()  # one norm frozen on purpose
    modes = [module.training for module in model.modules()]
    prune(model, 0.4, example_input=torch.zeros(1, *INPUT_SHAPE))
    assert [module.training for module in model.modules()] == modes


def test_parameters_are_replaced_so_an_old_optimizer_is_dead():
    """What the docstring warns of: whoever keeps the old optimizer trains tensors that nothing reads."""
    model = ThreeBranches()
    old = {id(p) for p in model.parameters()}
    model(torch.zeros(1, *INPUT_SHAPE)).sum().backward()
    prune(model, 0.4, example_input=torch.zeros(1, *INPUT_SHAPE))
    assert id(model.stem.weight) not in old
    assert model.stem.weight.grad is None
    model(torch.zeros(1, *INPUT_SHAPE)).sum().backward()  # and it still trains
    assert model.stem.weight.grad is not None


def test_norm_statistics_are_the_callers():
    """Ranking by data runs the network; that must not move the running statistics of the device's own norms."""
    model = shaken(Separable())
    kept = copy.deepcopy(model.state_dict())
    batches = [(torch.randn(4, *INPUT_SHAPE), torch.tensor([0, 1, 2, 3]))]
    prune(model, 0.3, example_input=torch.zeros(1, *INPUT_SHAPE), criterion="taylor", batches=batches)
    for name, tensor in model.state_dict().items():
        if "running" in name:
            assert set(tensor.tolist()) <= set(kept[name].tolist())


def test_floor_is_an_error_that_says_the_share():
    """A level that the floors forbid must not quietly become a smaller one: the memory plan would not hold."""
    model = ThreeBranches()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(LevelOutOfReachError, match=r"stop it at 0\.\d+"):
        prune(model, 0.99, example_input=torch.zeros(1, *INPUT_SHAPE))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_floors_keep_two_filters_and_the_residual_share():
    """Fewer would starve a layer; in residual sums of 8 at level 0.6 the paper keeps ceil(8 * 0.4) = 4."""
    model = build("resnet20", num_classes=10, in_channels=3, image_size=32)
    prune(model, 0.9, example_input=torch.zeros(1, 3, 32, 32))
    widths = [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert min(widths) >= 2
    assert model.stage3[0].body[1].conv.out_channels >= 7  # ceil(64 * 0.1)


def test_classifier_outputs_are_never_cut():
    """A lost class could never be predicted again; SqueezeNet's classifier is a convolution, which hides it."""
    for name in ("squeezenet", "vgg11"):
        model = family(name)
        prune(model, 0.9, example_input=torch.zeros(1, 3, 32, 32), criterion="random")
        assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 100)


def test_layers_that_mix_channels_are_left_whole():
    """GroupNorm's statistics run over channels: cut, the rest would change, so what enters it stays."""
    model = nn.Sequential(
        nn.GroupNorm(1, 3),
        nn.Conv2d(3, 8, 3),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 5, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    prune(model, 0.3, example_input=torch.zeros(1, *INPUT_SHAPE))
    assert model[1].out_channels == 8
    assert model[4].out_channels < 8


def test_default_criterion_is_taylor_with_data_and_l1_without():
    """The default is the one that measured best; without data the paper's must still work."""
    batches = [(torch.randn(4, *INPUT_SHAPE), torch.tensor([0, 1, 2, 3]))]
    model = ThreeBranches()
    for named, data in (("taylor", batches), ("l1", None)):
        weights = []
        for criterion in (None, named):
            pruned = copy.deepcopy(model)
            prune(pruned, 0.3, example_input=torch.zeros(1, *INPUT_SHAPE), criterion=criterion, batches=data)
            weights.append(pruned.stem.weight)
        assert torch.equal(*weights)


def test_global_randomness_is_left_alone():
    """A draw inside prune would change every batch order after it: same seed, different run."""
    model = ThreeBranches()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    prune(model, 0.3, example_input=torch.zeros(1, *INPUT_SHAPE), criterion="random")
    assert torch.equal(torch.rand(2), expected)


def test_pruning_again_composes():
    """A device prunes what it pruned before; two records must lead to one network that the last record rebuilds."""
    model = family("resnet8")
    x_BCHW = torch.randn(2, 3, 32, 32)
    first = prune(model, 0.3, example_input=x_BCHW)
    second = prune(model, 0.3, example_input=x_BCHW)
    assert second.parameters / first.parameters == pytest.approx(0.7, abs=0.01)
    rebuilt = second.rebuild(lambda: first.rebuild(lambda: family("resnet8")))
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(rebuilt.eval()(x_BCHW), model.eval()(x_BCHW))
    assert second == Topology.of(rebuilt, (3, 32, 32))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_linear_layers_over_positions_are_cut(criterion):
    """On [B, T, F] a linear layer's channels are the last axis: the criteria that look at data took T for them."""
    model = Tokens()
    before = parameters(model)
    batches = [(torch.randn(3, 4, 6), torch.tensor([0, 1, 2]))]
    prune(model, 0.4, example_input=torch.zeros(1, 4, 6), criterion=criterion, batches=batches)
    assert 1 - parameters(model) / before == pytest.approx(0.4, abs=0.05)
