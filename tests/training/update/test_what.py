"""What is trained is trained, what is frozen stays as it is, and both cost what runs."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.models import build
from fedge.training.error_map import ErrorMapPruner
from fedge.training.loop import train
from fedge.training.macs import count_macs
from fedge.training.pruning import prune
from fedge.training.quantization import Quantization
from fedge.training.update.what import freeze, trained, training_mode
from tests.training.judge import judged_macs
from tests.training.networks import with_slow

SHAPE = (3, 16, 16)
X, Y = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.arange(4)
WHATS = ("head", "norm", "shift", "last")


def network(name: str, what: str | tuple[str, ...] = "all", shape: tuple[int, int, int] = SHAPE) -> nn.Module:
    model = build(name, num_classes=10, in_channels=3, image_size=shape[1:])
    freeze(model, what, shape)
    return model


def layers(model: nn.Module) -> set[str]:
    return {name.rpartition(".")[0] for name in trained(model)}


class HeadFirst(nn.Module):
    """The head is made first and runs last; one norm has no scale."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.scale = nn.BatchNorm2d(3, affine=False)
        self.trunk = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 8, 3)])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.scale(x_BCHW)
        for layer in self.trunk:
            x_BCHW = layer(x_BCHW)
        return self.head(x_BCHW.mean((2, 3)))


class Bare(nn.Module):
    """Its head is a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.weight = nn.Parameter(torch.randn(3, 8))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.linear(self.conv(self.first(x_BCHW)).mean((2, 3)), self.weight)


def flat() -> nn.Sequential:
    block = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
    return nn.Sequential(*block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def in_two(trunk: nn.Module) -> nn.Sequential:
    return nn.Sequential(trunk, nn.Sequential(nn.Flatten(), nn.LayerNorm(10), nn.Dropout(), nn.Linear(10, 3)))


MADE = {
    "head first": (HeadFirst, {"head"}, {"head", "trunk.2"}),
    "bare": (Bare, {""}, {"", "conv"}),
    "flat": (flat, {"8"}, {"3", "4", "8"}),
    "in two": (lambda: in_two(flat()[:7].append(nn.Conv2d(8, 10, 1))), {"1.3"}, {"0.7", "1.1", "1.3"}),
    "resnet8": (lambda: network("resnet8"), {"head.classifier"}, None),
    "squeezenet": (lambda: network("squeezenet"), {"classifier"}, None),
}


@pytest.mark.parametrize("name", MADE)
def test_head_and_last_of_any_network(name: str) -> None:
    """If this fails, the trunk is trained for the head of a network that is written in another order."""
    make, head, last = MADE[name]
    model = make()
    freeze(model, "head", SHAPE)
    assert layers(model) == head
    model = make()
    freeze(model, "last", SHAPE)
    if last is not None:
        assert layers(model) == last
    assert head < layers(model) and trained(model) < trained(make())


def test_last_is_the_last_stage() -> None:
    """If this fails, `last` of fedge's own networks is not what the documentation says."""
    stage = {name.rpartition(".")[0] for name in trained(network("resnet20")) if name.startswith("stage3.")}
    assert layers(network("resnet20", "last")) == stage | {"head.classifier"}
    assert layers(network("mobilenet_v2", "last")) == {"last.conv", "last.norm", "head.classifier"}


def test_norm_and_shift() -> None:
    """If this fails, kernels are trained with the norms, or a head is not."""
    model = network("resnet8", "norm")
    assert {type(model.get_submodule(layer)) for layer in layers(model)} == {nn.BatchNorm2d, nn.Linear}
    model = network("squeezenet", "shift")
    head = {"classifier.weight"}
    assert trained(model) - head == {name for name, _ in model.named_parameters() if name.endswith("bias")}


@pytest.mark.parametrize("what", [*WHATS, ("stage2", "head.classifier.bias")])
@pytest.mark.parametrize("name", with_slow(["resnet20", "mobilenet_v2"], ["mobilenet_v2"]))
def test_macs_are_those_that_run(name: str, what) -> None:
    """If this fails, a frozen layer is charged for, or error propagation below it is free."""
    if name == "mobilenet_v2" and isinstance(what, tuple):
        what = ("blocks.5", "last.norm")
    model = network(name, what)
    judged = copy.deepcopy(model)
    training_mode(judged)
    expected = judged_macs(lambda: F.cross_entropy(judged(X), Y))
    done = train(model, [(X, Y)], optimizer=torch.optim.SGD(model.parameters(), 0.01))
    assert done.macs_done == expected
    if what == "head":
        assert done.macs_error_propagation == 0
    assert done.macs_dense == done.macs_done  # of this network; a device's is of the whole one


@pytest.mark.parametrize("what", WHATS)
@pytest.mark.parametrize("method", [None, "error_maps", "quantization", "both"])
@pytest.mark.parametrize("name", ["resnet8", "squeezenet"])
def test_frozen_parts_stay_as_they_are(name: str, method, what) -> None:
    """If this fails, a frozen trunk computes other features after a round than before."""
    model = network(name, what)
    methods = {}
    if method in ("error_maps", "both"):
        methods["error_maps"] = ErrorMapPruner(model, keep=0.5)
    if method in ("quantization", "both"):
        methods["quantization"] = Quantization(model)
    before = copy.deepcopy(model.state_dict())
    done = train(
        model, [(X, Y)] * 2, optimizer=torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1), **methods
    )
    moved = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert moved & dict(model.named_parameters()).keys() == trained(model)
    learnt = {key.rpartition(".")[0] for key in moved if key.endswith("running_mean")}
    scales = {key.rpartition(".")[0] for key in trained(model) if key.endswith("norm.weight")}
    assert learnt == scales
    assert done.macs_done <= 2 * len(X) * count_macs(model, SHAPE).training


def test_what_is_dropped_of_a_frozen_networks_error_maps_is_saved() -> None:
    """If this fails, error-map pruning of a partly frozen network is counted as of a whole one."""
    model = network("resnet8", "last")
    dense = train(model, [(X, Y)], optimizer=torch.optim.SGD(model.parameters(), 0.01))
    half = ErrorMapPruner(model, keep=0.5)
    done = train(model, [(X, Y)], optimizer=torch.optim.SGD(model.parameters(), 0.01), error_maps=half)
    head = 64 * 10 * len(X)
    for part in ("macs_error_propagation", "macs_weight_gradient"):
        assert getattr(done, part) - head == (getattr(dense, part) - head) / 2


@pytest.mark.parametrize(
    ("what", "learn"), [("all", [True, True]), (("trunk.0", "head"), [True, False]), ("head", [False, False])]
)
def test_norms_without_a_scale_go_with_the_layers_beside_them(what, learn: list[bool]) -> None:
    """If this fails, statistics of a frozen trunk move, or those of a trained one do not."""
    model = HeadFirst()
    freeze(model, what, SHAPE)
    training_mode(model)
    assert [model.scale.training, model.trunk[1].training] == learn and model.head.training


def test_a_whole_network_is_in_training_mode_as_ever() -> None:
    """If this fails, plain training is no longer PyTorch's."""
    model = network("resnet8").eval()
    training_mode(model)
    assert all(layer.training for layer in model.modules())


def test_a_cut_leaves_frozen_what_was() -> None:
    """If this fails, a pruned network is trained whole."""
    model = network("resnet8", "head")
    prune(model, 0.5, example_input=X[:1])
    assert layers(model) == {"head.classifier"}
    train(model, [(X, Y)], optimizer=torch.optim.SGD(model.parameters(), 0.1))


WRONG = {
    "stage9": r"names layer 'stage9', which is unknown; did you mean 'stage",
    "head.pool": r"names layer 'head\.pool', which has no parameters",
}


@pytest.mark.parametrize("name", WRONG)
def test_unknown_layers_are_refused(name: str) -> None:
    """If this fails, a typing error freezes the whole network, or is a KeyError."""
    with pytest.raises(UserError, match=WRONG[name]):
        network("resnet8", (name,))


@pytest.mark.parametrize("what", ["norm", "shift"])
def test_a_network_without_any_is_refused(what: str) -> None:
    """If this fails, `norm` of a network without norms is its head in silence."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(4 * 14 * 14, 3, bias=False))
    with pytest.raises(UserError, match=f"'{what}' and the network has no"):
        freeze(model, what, SHAPE)


def test_what_the_network_freezes_itself_stays_frozen() -> None:
    """If this fails, `what` thaws a trunk that its author has frozen."""
    model = flat()
    model[3].weight.requires_grad_(False)
    freeze(model, "last", SHAPE)
    assert trained(model) == {"3.bias", "4.weight", "4.bias", "8.weight", "8.bias"}
    model[8].requires_grad_(False)
    with pytest.raises(UserError, match="the network itself has frozen"):
        freeze(model, "head", SHAPE)
