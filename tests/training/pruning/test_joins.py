"""Ways of joining channels: each is followed, or its channels are kept and the rest is cut, for every criterion."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedge.errors import UserError
from fedge.training.pruning.cut import Cut
from fedge.training.pruning.layers import cuttable_layers
from fedge.training.pruning.one_shot import prune
from fedge.training.pruning.units import PINNED, find_coupling
from tests.training.networks import parameters

Join = Callable[[nn.ModuleDict, Tensor], Tensor]


def block(inputs: int, outputs: int, kernel: int = 3, **more: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **more)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Joined(nn.Module):
    """A block of 16, some join of its channels, a block of 20."""

    def __init__(self, join: Join, width: int, **parts: nn.Module) -> None:
        super().__init__()
        self.join = join
        self.first, self.parts, self.last = block(3, 16), nn.ModuleDict(parts), block(width, 20)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.join(self.parts, self.first(x))).mean((2, 3)))


def halves(p, x):
    a, b = p["a"](x).chunk(2, 1)
    return torch.cat((a, b, p["b"](b)), 1)


def halves_by_slice(p, x):
    y = p["a"](x)
    return torch.cat((y[:, : y.shape[1] // 2], p["b"](y[:, y.shape[1] // 2 :])), 1)


def every_second(p, x):
    return torch.maximum(x[:, ::2], x[:, 1::2])


def shuffle(p, x):
    n, c, h, w = x.shape
    return x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)


def padded_by_zeros_like(p, x):
    y = x[:, :, ::2, ::2]
    return torch.relu(p["a"](x) + torch.cat((y, torch.zeros_like(y)), 1))


def squeeze_excite(p, x):
    n, c, _, _ = x.shape
    gate = torch.sigmoid(p["b"](torch.relu(p["a"](F.adaptive_avg_pool2d(x, 1).view(n, c)))))
    return x * gate.view(n, c, 1, 1).expand_as(x)


def maps_of_features(p, x):
    return p["a"](x.mean((2, 3))).view(len(x), -1, 4, 4)


FOLLOWED = {
    "halves": (halves, 48, {"a": (16, 32, 1), "b": (16, 16)}),
    "halves by slice": (halves_by_slice, 32, {"a": (16, 32, 1), "b": (16, 16)}),
    "every second": (every_second, 8, {}),
    "maximum of halves": (lambda p, x: torch.maximum(*x.chunk(2, 1)), 8, {}),
    "gated linear unit": (lambda p, x: F.glu(x, 1), 8, {}),
    "shuffle": (shuffle, 16, {}),
    "shuffle of PyTorch": (lambda p, x: F.channel_shuffle(x, 2), 16, {}),
    "pixels": (lambda p, x: F.pixel_shuffle(x, 2), 4, {}),
    "pixels back": (lambda p, x: F.pixel_unshuffle(x, 2), 64, {}),
    "repeated": (lambda p, x: x.repeat(1, 2, 1, 1), 32, {}),
    "repeated one by one": (lambda p, x: x.repeat_interleave(2, 1), 32, {}),
    "padded": (padded_by_zeros_like, 32, {"a": (16, 32)}),
    "squeeze and excite": (squeeze_excite, 16, {"a": nn.Linear(16, 6), "b": nn.Linear(6, 16)}),
    "maps of features": (maps_of_features, 16, {"a": nn.Linear(16, 256)}),
    "in place": (lambda p, x: x.clone().mul_(2).add_(x).clamp_(0, 1), 16, {}),
    "padded by numbers": (lambda p, x: F.pad(x, (0, 0, 0, 0, 4, 4)), 24, {}),
    "dropout of channels": (lambda p, x: F.dropout2d(x, 0.5, training=x.requires_grad), 16, {}),
}


def fixed_shuffle(p, x):
    return x.view(len(x), 2, 8, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


def into_a_buffer(p, x):
    y = torch.zeros(len(x), 32, *x.shape[2:])
    y[:, :16], y[:, 16:] = x, p["a"](x)
    return y


def attention(p, x):
    t = x.flatten(2).transpose(1, 2)
    return x + p["a"](t, t, t)[0].transpose(1, 2).reshape(x.shape)


KEPT = {
    "one-channel gate": (
        lambda p, x: x * torch.sigmoid(p["a"](x)),
        16,
        {"a": nn.Conv2d(16, 1, 7, padding=3)},
    ),
    "one-channel sum": (lambda p, x: x + p["a"](x), 16, {"a": nn.Conv2d(16, 1, 1)}),
    "split by numbers": (lambda p, x: torch.cat(x.split([4, 12], 1)[::-1], 1), 16, {}),
    "shuffle by numbers": (fixed_shuffle, 16, {}),
    "first eight": (lambda p, x: x[:, :8] * 2, 8, {}),
    "by index": (lambda p, x: x[:, torch.arange(15, -1, -1)], 16, {}),
    "mean of channels": (lambda p, x: x - x.mean(1, keepdim=True), 16, {}),
    "norm of channels": (lambda p, x: F.normalize(x, dim=1), 16, {}),
    "local response": (lambda p, x: F.local_response_norm(x, 3), 16, {}),
    "constant": (lambda p, x: x * torch.linspace(1, 2, 16).view(1, 16, 1, 1), 16, {}),
    "weights used twice": (lambda p, x: F.conv2d(p["a"](x), p["a"].weight), 16, {"a": nn.Conv2d(16, 16, 1)}),
    "buffer": (into_a_buffer, 32, {"a": nn.Conv2d(16, 16, 1)}),
    "attention": (attention, 16, {"a": nn.MultiheadAttention(16, 2, batch_first=True)}),
}


def network(join: Join, width: int, parts: dict) -> Joined:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {k: block(*v) if isinstance(v, tuple) else copy.deepcopy(v) for k, v in parts.items()}
        if join is padded_by_zeros_like:
            made["a"][0].stride = (2, 2)
        return Joined(join, width, **made)


X, Y = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 5


@pytest.mark.parametrize("criterion", ["l1", "taylor", "activation", "random"])
@pytest.mark.parametrize("name", [*FOLLOWED, *KEPT])
def test_joins_are_pruned_and_train(name, criterion):
    """A whole network refused for one join, or by one criterion and not by another, helps nobody."""
    model = network(*{**FOLLOWED, **KEPT}[name])
    before = parameters(model)
    topology = prune(model, 0.25, example_input=X[:1], criterion=criterion, batches=[(X, Y)])
    assert topology.parameters < 0.8 * before
    F.cross_entropy(model.train()(X), Y).backward()
    assert model.eval()(X).shape == (6, 5)


@pytest.mark.parametrize("name", FOLLOWED)
def test_followed_joins_lose_channels(name):
    """To keep all that is joined would be safe, and save nothing."""
    spare = network(*FOLLOWED[name])
    coupling = find_coupling(spare, X[:1], joins="tried")
    assert (coupling.unit_of_output["first.0"] != PINNED).any()
    assert (coupling.unit_of_input["last.0"] != PINNED).any()


@pytest.mark.parametrize("name", KEPT)
def test_what_is_not_understood_is_kept(name):
    """These joins go by numbers or mix channels: one channel less and they compute something else."""
    coupling = find_coupling(network(*KEPT[name]), X[:1], joins="tried")
    assert (coupling.unit_of_output["last.0"] != PINNED).all()
    if not name.startswith("one-channel"):
        assert (coupling.unit_of_output["first.0"] == PINNED).all()
    else:
        assert (coupling.unit_of_output["parts.a"] == PINNED).all()


@pytest.mark.parametrize("name", [*FOLLOWED, *KEPT])
@pytest.mark.parametrize("seed", range(3))
def test_any_cut_equals_the_zeroed_network(name, seed):
    """The promise of every cut, whatever is joined: in double precision nothing but rounding lies between the two."""
    model = network(*{**FOLLOWED, **KEPT}[name]).double()
    if name in ("constant", "buffer"):
        model = model.float()
    x = X[:2].to(next(model.parameters()))
    coupling = find_coupling(copy.deepcopy(model), x, joins="tried")
    generator = torch.Generator().manual_seed(seed)
    removed_U = torch.rand(coupling.units, generator=generator) < 0.3
    for name_of in cuttable_layers(model):  # one channel at least in each
        removed_U[coupling.unit_of_output[name_of].clamp_min(0)[0]] = False
    assert Cut(coupling, removed_U).error(model.eval(), x) < 1e-5


def test_refusals_name_the_layer():
    """Only advice to leave pruning out leaves a person alone with a network of fifty layers."""
    model = network(*KEPT["by index"])
    with pytest.raises(UserError, match=r"kept whole.*'first.1' \(meets index\)"):
        prune(model, 0.9, example_input=X[:1])
