"""Networks that are about to be loaded are those that building and cutting them anew would give."""

import pytest
import torch

from fedge.catalog.program import Program
from fedge.errors import UserError
from fedge.network.blank import blank
from fedge.network.source import NetworkSource
from fedge.training.pruning.one_shot import prune
from fedge.training.pruning.topology import Topology

SHAPE = (3, 32, 32)
OWN = "from torch import nn\ndef build(num_classes):\n    return nn.Linear(3, num_classes)\n"


@pytest.mark.parametrize("name", ["lenet", "resnet8"])
@pytest.mark.parametrize("cut", [False, True])
def test_loaded_it_is_the_network_that_was_saved(name: str, cut: bool) -> None:
    """Breaks if a device's network comes back with other numbers, another order in memory, or tensors of a mate's."""
    source = NetworkSource(name)
    saved = source.build(10, SHAPE, seed=3)
    record = prune(saved, 0.5, example_input=torch.zeros(1, *SHAPE)).to_json() if cut else None
    anew = source.build(10, SHAPE)
    if record:
        anew = Topology.from_json(record).rebuild(lambda: source.build(10, SHAPE))
    anew.load_state_dict(saved.state_dict())
    first, second = (blank(source, 10, SHAPE, record) for _ in range(2))
    first.load_state_dict(saved.state_dict())
    x_BCHW = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first(x_BCHW), anew(x_BCHW))
    assert str(first) == str(anew) and first.training
    for mine, theirs in zip(first.parameters(), anew.parameters(), strict=True):
        assert mine.stride() == theirs.stride() and mine.requires_grad and mine.device.type == "cpu"
    held = {tensor.data_ptr() for tensor in first.state_dict().values()}
    assert not held & {tensor.data_ptr() for tensor in second.state_dict().values()}


def test_a_record_of_another_network_is_refused() -> None:
    """Breaks if weights are loaded into a network that they do not fit, or the refusal is a traceback."""
    record = Topology.of(NetworkSource("resnet8").build(10, SHAPE), SHAPE).to_json()
    for _ in range(2):
        with pytest.raises(UserError, match="belongs to another network"):
            blank(NetworkSource("lenet"), 10, SHAPE, record)


def test_a_network_of_ones_own_is_built_each_time() -> None:
    """Breaks if what a function of the user's holds beside its weights is shared by devices."""
    program = Program("net", OWN, {})
    source = NetworkSource("net.py:build", program=program)
    assert blank(source, 4, SHAPE) is not blank(source, 4, SHAPE)
