"""Where the cut ends: as near to the level as the units allow."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fedge.models import build
from fedge.training.pruning.ledger import Ledger
from fedge.training.pruning.one_shot import choose_units, prune
from fedge.training.pruning.units import find_coupling
from tests.training.networks import parameters


def coarse_and_fine() -> tuple[nn.Sequential, Tensor]:
    """A network whose first four channels cost a fifth of it each, the other 64 a hundredth; and an input."""
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10)), torch.zeros(1, 1, 8, 8)


@pytest.mark.parametrize("level", [0.05, 0.08])
def test_a_unit_that_costs_too_much_does_not_end_the_cut(level):
    """With the dearest units ranked lowest, small levels used to remove nothing at all, and say nothing."""
    model, x_BCHW = coarse_and_fine()
    before = parameters(model)
    prune(
        model, level, example_input=x_BCHW, criterion=lambda evidence: torch.arange(evidence.coupling.units)
    )
    left = parameters(model)
    assert 1 - left / before == pytest.approx(level, abs=0.01)


def test_near_the_level_the_cut_ends_where_the_paper_ends_it():
    """Within half a percent the first unit that overshoots ends it: skipping on would cut others than ADaPT cuts."""
    layers = nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 500, 1, bias=False)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(500, 2, bias=False))
    coupling = find_coupling(copy.deepcopy(model), torch.zeros(1, 1, 1, 1))
    ledger = Ledger(model, coupling)  # 2,503 parameters; 501 per channel of the first layer, 5 of the second
    score_U = torch.arange(coupling.units).float()
    score_U[coupling.unit_of_output["1"][:2]] = -1  # two cheap ones, then the dear ones, then cheap ones
    choose_units(score_U, 20 / ledger.total, ledger)
    assert ledger.removed == 10


@pytest.mark.parametrize(("level", "left"), [(0.1, 12), (0.15, 9), (0.35, 9), (0.4, 6)])
def test_where_all_units_are_dear_the_nearest_is_taken(level, left):
    """Of 12 parameters each channel takes 3: level 0.1 cuts nothing, and no level may end further off than needed."""
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
    assert prune(model, level, example_input=torch.zeros(1, 1, 1, 1)).parameters == left


def test_minus_infinity_goes_first():
    """Only plus infinity means `never`; a log-score of 0 once read as `the floors stop it at 0.000`."""
    scores = torch.tensor([4.0, -torch.inf, 3.0, -torch.inf])
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
    expected = model[0].weight.data[[0, 2]].clone()
    prune(model, 0.5, example_input=torch.zeros(1, 1, 1, 1), criterion=lambda _: scores)
    assert torch.equal(model[0].weight, expected)


@pytest.mark.parametrize("level", [0.25, 0.75])
@pytest.mark.parametrize(
    ("name", "round_to"),
    [pytest.param("mobilenet_v2", 16, marks=pytest.mark.slow), ("vgg11", 16), ("resnet20", 4)],
)
def test_widths_end_as_multiples_and_the_level_is_met(name, round_to, level):
    """If this fails, `round_to` leaves widths that no processor likes, or another size than was asked for."""
    model = build(name, num_classes=10, in_channels=3, image_size=32)
    before = parameters(model)
    prune(model, level, example_input=torch.zeros(1, 3, 32, 32), criterion="random", round_to=round_to)
    assert 1 - parameters(model) / before == pytest.approx(level, abs=0.01)
    widths = [
        layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.groups == 1
    ]
    odd = {width for width in widths if width % round_to}
    assert len(odd) <= 2, f"{widths}: the last step may be taken in part"


def test_where_multiples_are_not_enough_single_channels_go():
    """If this fails, a level that the network's widths allow is refused for the sake of its speed."""
    model = nn.Sequential(nn.Conv2d(1, 8, 1, bias=False), nn.Flatten(), nn.Linear(8, 2, bias=False))
    assert prune(model, 0.5, example_input=torch.zeros(1, 1, 1, 1), round_to=16).parameters == 12


def test_the_lowest_of_a_family_wait_for_each_other():
    """Two layers of 4; multiples of 2. By score alone the cut would take 0, 4 and 1; in pairs it takes 0 with 1."""
    layers = nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(4, 1, bias=False))
    coupling = find_coupling(copy.deepcopy(model), torch.zeros(1, 1, 1, 1))
    first, second = coupling.unit_of_output["0"], coupling.unit_of_output["1"]
    score_U = torch.full((coupling.units,), 9.0)
    score_U[first[0]], score_U[second[0]], score_U[first[1]] = 0, 1, 2
    removed_U = choose_units(score_U, 10 / 24, Ledger(model, coupling), round_to=2)
    assert removed_U[first].tolist() == [True, True, False, False]
    assert not removed_U[second].any()
