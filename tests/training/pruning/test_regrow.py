"""A pruned network grows back: cut channels as they were shipped, kept ones as they were trained."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedge.errors import UserError
from fedge.models import build
from fedge.training.macs import count_macs
from fedge.training.pruning.one_shot import LevelOutOfReachError, prune
from fedge.training.pruning.regrow import KeptChannels, regrown
from fedge.training.pruning.topology import Topology
from tests.training.networks import HAND_WRITTEN, INPUT_SHAPE, RandomNetwork, shaken

EXAMPLE = torch.zeros(1, *INPUT_SHAPE)


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def from_disk(topology: Topology) -> Topology:
    return Topology.from_json(topology.to_json())


@pytest.mark.parametrize("make", HAND_WRITTEN)
def test_nothing_trained_gives_the_vanilla_network_bit_for_bit(make) -> None:
    """Breaks if a weight of any kind of layer (groups, depthwise, transposed, norms) comes back in another's place."""
    factory = shaken(make())
    model = copy.deepcopy(factory)
    topology = prune(model, 0.3, example_input=EXAMPLE)
    again = from_disk(topology).regrow(model, copy.deepcopy(factory))
    assert topology.kept and same(again, factory)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), level=st.floats(0.1, 0.5), second=st.floats(0.1, 0.4))
def test_so_it_does_for_random_networks_that_were_cut_twice(seed: int, level: float, second: float) -> None:
    """Breaks if a second cut's channels are taken for the vanilla network's: a device that shrank would grow wrong."""
    factory = RandomNetwork(seed)
    model = copy.deepcopy(factory)
    try:
        first = prune(model, level, example_input=EXAMPLE, criterion="random", seed=1)
        topology = prune(model, second, example_input=EXAMPLE, criterion="random", seed=2).after(first)
    except LevelOutOfReachError:
        return
    assert same(from_disk(topology).regrow(model, copy.deepcopy(factory)), factory)


def test_by_hand_on_four_channels() -> None:
    """Breaks if kept weights, and those alone, are not the trained ones: worked out with pencil and paper.

    Linear 3 -> 4 -> 2; hidden channels 1 and 3 are kept and trained (set to 7), 0 and 2 come back as ones.
    """
    vanilla = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    small = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    for network, value in ((vanilla, 1.0), (small, 7.0)):
        for parameter in network.parameters():
            nn.init.constant_(parameter, value)
    kept = {"0": KeptChannels((1, 3), (0, 1, 2)), "2": KeptChannels((0, 1), (1, 3))}
    whole = regrown(small, kept, vanilla).state_dict()
    assert whole["0.weight"].tolist() == [[1, 1, 1], [7, 7, 7], [1, 1, 1], [7, 7, 7]]
    assert whole["0.bias"].tolist() == [1, 7, 1, 7]
    assert whole["2.weight"].tolist() == [[1, 7, 1, 7], [1, 7, 1, 7]]
    assert whole["2.bias"].tolist() == [7, 7]  # no channel of it was cut


def test_pruned_anew_with_the_same_data_is_a_fresh_prune() -> None:
    """Breaks if growing back leaves anything behind that a later ranking sees, or MACs are not the dense."""
    generator = torch.Generator().manual_seed(3)
    factory = build("resnet8", num_classes=10, in_channels=3, image_size=32)
    x_BCHW = torch.randn(8, 3, 32, 32, generator=generator)
    today = [(x_BCHW, torch.arange(8) % 4)]
    yesterday = [(x_BCHW, 4 + torch.arange(8) % 4)]
    how = {"example_input": x_BCHW[:1], "criterion": "taylor", "seed": 5}
    model, fresh = copy.deepcopy(factory), copy.deepcopy(factory)
    topology = prune(model, 0.5, batches=yesterday, **how)
    whole = topology.regrow(model, copy.deepcopy(factory))
    assert count_macs(whole, (3, 32, 32)) == count_macs(factory, (3, 32, 32))
    anew, expected = prune(whole, 0.5, batches=today, **how), prune(fresh, 0.5, batches=today, **how)
    assert anew == expected and anew.kept == expected.kept != topology.kept
    assert same(whole, fresh)


def test_trained_weights_of_kept_channels_survive() -> None:
    """Breaks if growing back forgets what was learnt, which is what tells it from starting at the factory again."""
    factory = build("lenet", num_classes=10, in_channels=1, image_size=28)
    model = copy.deepcopy(factory)
    topology = prune(model, 0.6, example_input=torch.zeros(1, 1, 28, 28))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1.0
    grown = topology.regrow(model, copy.deepcopy(factory)).state_dict()
    for name, before in factory.state_dict().items():
        moved = grown[name] != before
        assert int(moved.sum()) == model.state_dict()[name].numel()
        assert torch.equal(grown[name][moved], before[moved] + 1.0)


def record_without(topology: Topology, **changes) -> Topology:
    import json

    record = {**json.loads(topology.to_json()), **changes}
    return Topology.from_json(json.dumps({key: value for key, value in record.items() if value is not None}))


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (None, "does not say which channels"),
        ({"nowhere": ["1", "1"]}, "'nowhere', which is not in the network"),
        ({"stem.conv": ["3", "7"]}, "no cut of the vanilla"),
        ({"stem.conv": ["ffffffffffff", "1"]}, "does not have"),
    ],
)
def test_a_record_of_another_network_is_refused(kept, said: str) -> None:
    """Breaks if a device grows back into a network of mixed-up channels without a word."""

    def make() -> nn.Module:
        return build("resnet8", num_classes=10, in_channels=3, image_size=32)

    model = make()
    topology = prune(model, 0.5, example_input=torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match=said):
        record_without(topology, kept=kept).regrow(model, make())


@pytest.mark.parametrize("entry", [["zz", "1"], ["1"], 7, ["-1", "1"], [1, 2]])
def test_masks_that_are_none_are_refused(entry) -> None:
    """Breaks if a damaged record ends in a traceback."""
    with pytest.raises(UserError, match="hexadecimal"):
        KeptChannels.from_hex("stem", entry)
