"""The record rebuilds the very network, and a wrong record says which layer is wrong."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from fedge.errors import UserError
from fedge.models import build
from fedge.training.pruning.one_shot import LevelOutOfReachError, prune
from fedge.training.pruning.topology import Topology
from tests.training.networks import HAND_WRITTEN, INPUT_SHAPE, RandomNetwork, parameters, shaken, with_slow


def resnet8():
    return build("resnet8", num_classes=10, in_channels=3, image_size=32)


def pruned_resnet8():
    model = resnet8()
    return model, prune(model, 0.5, example_input=torch.zeros(1, 3, 32, 32))


def rebuilt_from_disk(topology: Topology, model, factory):
    """What a device does after a restart: JSON text and safetensors bytes, nothing else."""
    rebuilt = Topology.from_json(topology.to_json()).rebuild(factory)
    rebuilt.load_state_dict(load(save(model.state_dict())), strict=True)
    return rebuilt


@pytest.mark.parametrize("make", HAND_WRITTEN)
def test_rebuilt_hand_written_network_gives_equal_outputs(make):
    """A device that cannot rebuild its own network after a restart has lost its training."""
    model = shaken(make())
    topology = prune(model, 0.3, example_input=torch.zeros(1, *INPUT_SHAPE))
    x_BCHW = torch.randn(2, *INPUT_SHAPE)
    assert torch.equal(rebuilt_from_disk(topology, model, make).eval()(x_BCHW), model.eval()(x_BCHW))


@pytest.mark.parametrize(
    "name",
    with_slow(
        ["lenet", "resnet8", "mobilenet_v2", "squeezenet", "vgg11", "har_cnn"], ["mobilenet_v2", "vgg11"]
    ),
)
def test_rebuilt_family_gives_equal_outputs(name):
    """The same for the networks that devices hold."""
    shape = {"lenet": (1, 28, 28), "har_cnn": (9, 1, 128)}.get(name, (3, 32, 32))

    def factory():
        return build(name, num_classes=10, in_channels=shape[0], image_size=shape[1:])

    model = factory()
    topology = prune(model, 0.8, example_input=torch.zeros(1, *shape))
    assert topology.parameters == parameters(model)
    x_BCHW = torch.randn(2, *shape)
    assert torch.equal(rebuilt_from_disk(topology, model, factory).eval()(x_BCHW), model.eval()(x_BCHW))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), level=st.floats(0.1, 0.6))
def test_rebuilt_random_network_gives_equal_outputs(seed, level):
    """And for networks nobody wrote a test for."""
    model = RandomNetwork(seed)
    try:
        topology = prune(model, level, example_input=torch.zeros(1, *INPUT_SHAPE), criterion="random")
    except LevelOutOfReachError:
        return
    x_BCHW = torch.randn(2, *INPUT_SHAPE)
    rebuilt = rebuilt_from_disk(topology, model, lambda: RandomNetwork(seed))
    assert torch.equal(rebuilt.eval()(x_BCHW), model.eval()(x_BCHW))


def test_rebuilding_leaves_training_mode_to_the_factory():
    """The check of the record runs the network; it must not leave it in evaluation mode, nor move its statistics."""
    _, topology = pruned_resnet8()
    rebuilt = topology.rebuild(lambda: resnet8().train())
    assert all(module.training for module in rebuilt.modules())
    assert int(rebuilt.stem.norm.num_batches_tracked) == 0


def changed(topology: Topology, **changes) -> str:
    return json.dumps({**json.loads(topology.to_json()), **changes})


def with_layer(topology: Topology, layer: str, channels) -> str:
    record = json.loads(topology.to_json())
    if channels is None:
        del record["layers"][layer]
    else:
        record["layers"][layer] = channels
    return json.dumps(record)


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        ("stage2.0.body.0.conv", [999, 16, 1]),  # wider than the network
        ("stage2.0.body.0.conv", [5, 16, 2]),  # other groups
        ("stage2.0.body.0.conv", [1, 16, 1]),  # narrower than what its norm says
        ("stage2.0.body.0.norm", [4, 5, 4]),  # a norm of unequal sides
        ("stage2.0.body.0.conv", [0, 16, 1]),
        ("stage2.0.body.0.conv", [4, 16]),
        ("stage2.0.body.0.conv", "wide"),
        ("stage2.0.body.0.conv", [True, 16, 1]),
        ("stage2.0.body.0.conv", None),
        ("stage9.conv", [4, 4, 1]),
    ],
)
def test_wrong_layer_is_named(layer, channels):
    """A corrupt record on a device must point at the layer, not fail later in a matrix product."""
    _, topology = pruned_resnet8()
    named = layer.removesuffix(".conv").removesuffix(".norm")  # a disagreement may be found at the neighbour
    with pytest.raises(UserError, match=named):
        Topology.from_json(with_layer(topology, layer, channels)).rebuild(resnet8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "not a topology"),
        ({"layers": []}, "no layers"),
        ({"input_shape": [3, -1]}, "input_shape"),
        ({"parameters": "many"}, "parameters"),
    ],
)
def test_wrong_head_is_refused(change, message):
    """A record of a later fedge, or of something else, must not be half understood."""
    _, topology = pruned_resnet8()
    with pytest.raises(UserError, match=message):
        Topology.from_json(changed(topology, **change))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '"x"'])
def test_text_that_is_no_record_is_refused(text):
    """A file cut short by a full disk must be one clear line."""
    with pytest.raises(UserError, match="topology record"):
        Topology.from_json(text)


def test_wrong_parameter_count_is_refused():
    """The last check: layers that fit each other but are not what was recorded."""
    _, topology = pruned_resnet8()
    with pytest.raises(UserError, match="parameters"):
        Topology.from_json(changed(topology, parameters=7)).rebuild(resnet8)


def test_record_of_another_network_is_refused():
    """A state folder mixed up between two scenarios must not load."""
    _, topology = pruned_resnet8()
    with pytest.raises(UserError, match="another network"):
        topology.rebuild(lambda: build("resnet20", num_classes=10, in_channels=3, image_size=32))


def test_equal_topologies_give_equal_text():
    """Records are compared and hashed as text."""
    first, second = pruned_resnet8()[1], pruned_resnet8()[1]
    assert first == second
    assert first.to_json() == second.to_json()
    assert Topology.from_json(first.to_json()) == first
