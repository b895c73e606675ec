"""The two accountings of what a cut removes."""

import copy

import pytest
import torch
from torch import nn

from fedge.models import build
from fedge.training.pruning.cut import Cut
from fedge.training.pruning.ledger import Ledger
from fedge.training.pruning.one_shot import choose_units
from fedge.training.pruning.units import find_coupling
from tests.training.networks import parameters, with_slow

# Nominal level -> share really removed in the authors' own topologies, in percent (range over their subsets).
PUBLISHED = {
    "alexnet": {0.25: (25.1, 25.1), 0.5: (50.0, 50.1), 0.75: (75.0, 75.0), 0.9: (90.1, 90.1), 0.95: (95.0, 95.0)},
    "resnet20": {0.25: (25.0, 25.1), 0.5: (48.9, 49.7), 0.75: (73.1, 73.8), 0.9: (87.7, 88.2), 0.95: (92.5, 92.9)},
    "mobilenet_v2": {
        0.25: (24.6, 24.6), 0.5: (49.1, 49.2), 0.75: (73.3, 73.4), 0.9: (87.0, 87.2), 0.95: (91.6, 91.7)
    },
    "squeezenet": {
        0.25: (25.2, 25.2), 0.5: (48.1, 50.4), 0.75: (75.5, 75.6), 0.9: (90.7, 90.7), 0.95: (95.4, 95.4)
    },
}  # fmt: skip


@pytest.mark.parametrize("net", with_slow(PUBLISHED, ("mobilenet_v2", "squeezenet")))
def test_adapt_accounting_gives_the_authors_sizes(net):
    """If the estimate were another, a level here would not be the paper's level and no cell could be compared.

    Our networks are untrained, so units go in random order; 1 percentage point is what that leaves open.
    """
    model = build(net, num_classes=100, in_channels=3, image_size=32)
    coupling = find_coupling(copy.deepcopy(model), torch.zeros(1, 3, 32, 32))
    score_U = torch.rand(coupling.units, generator=torch.Generator().manual_seed(0))
    dense = parameters(model)
    for level, (low, high) in PUBLISHED[net].items():
        pruned = copy.deepcopy(model)
        Cut(coupling, choose_units(score_U, level, Ledger(pruned, coupling, "adapt"))).apply(pruned)
        removed = 100 * (1 - parameters(pruned) / dense)
        assert low - 1 <= removed <= high + 1


def test_exact_cost_by_hand():
    """Each channel of the first convolution is 9 + 1 + 2 parameters of its own and 4 columns of 1."""
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1), nn.Flatten())
    coupling = find_coupling(copy.deepcopy(model), torch.zeros(1, 1, 3, 3))
    ledger = Ledger(model, coupling)
    assert coupling.units == 6
    assert ledger.cost(0) == 9 + 1 + 2 + 4


def test_costs_add_up_to_what_goes():
    """The running account counts every earlier cut; else late cuts would be overpaid and the level missed."""
    model = build("resnet8", num_classes=10, in_channels=3, image_size=32)
    coupling = find_coupling(copy.deepcopy(model), torch.zeros(1, 3, 32, 32))
    ledger = Ledger(model, coupling)
    removed_U = choose_units(torch.rand(coupling.units), 0.6, ledger)
    pruned = copy.deepcopy(model)
    Cut(coupling, removed_U).apply(pruned)
    assert ledger.removed == parameters(model) - parameters(pruned)
