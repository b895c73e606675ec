"""Networks that cannot be copied, traced or run as they come: pruned all the same, or refused by name and untouched."""

import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as masks

from fedge.errors import UserError
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.pruning.one_shot import prune
from tests.training.networks import ThreeBranches, parameters

X, Y = torch.randn(9, 3, 14, 14, generator=torch.Generator().manual_seed(1)), torch.arange(9) % 5


def body(norm: nn.Module | None = None) -> nn.Sequential:
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), norm or nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 5))


class Deep(nn.Module):
    """Its second head runs in training only; `tuple_out` returns both."""

    def __init__(self, *, tuple_out: bool = False) -> None:
        super().__init__()
        self.tuple_out = tuple_out
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3)
        self.aux, self.side, self.head = nn.Conv2d(16, 32, 3), nn.Linear(32, 5), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = torch.relu(self.a(x))
        y = self.head(torch.relu(self.b(x)).mean((2, 3)))
        if not self.training:
            return y
        aux = self.side(torch.relu(self.aux(x)).mean((2, 3)))
        return (y, aux) if self.tuple_out else y + aux


@pytest.mark.parametrize("tuple_out", [False, True])
@pytest.mark.parametrize("criterion", ["l1", "taylor"])
def test_layers_of_training_only_follow_the_cut(criterion, tuple_out):
    """Traced in evaluation alone, the second head kept its inputs, and the next training step failed."""
    model = Deep(tuple_out=tuple_out)
    before = parameters(model)
    prune(model, 0.5, example_input=X[:1], criterion=criterion, batches=[(X, Y)])
    assert parameters(model) < 0.55 * before
    assert model.aux.in_channels == model.a.out_channels
    out = model.train()(X)
    F.cross_entropy(out[0] + out[1] if tuple_out else out, Y).backward()
    assert model.eval()(X).shape == (9, 5)


class Keeps(nn.Module):
    """Keeps its last features, in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.kept = body(), []

    def forward(self, x: Tensor) -> Tensor:
        self.kept = [self.body[:4](x)]
        return self.body[4:](self.kept[0])


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")  # the old one is what is tried
@pytest.mark.parametrize(
    "change", [masks.l1_unstructured, nn.utils.weight_norm, parametrizations.weight_norm]
)
def test_weights_made_from_others_stay_and_the_rest_is_cut(change):
    """Such a weight takes no new size; that is no reason to leave the whole network as it is."""
    model = body()
    change(model[0], "weight", *([0.3] if change is masks.l1_unstructured else []))
    prune(model, 0.2, example_input=X[:1])
    assert model(X).shape == (9, 5)
    assert model[0].out_channels == 8
    assert model[2].out_channels < 12


def test_kept_features_are_no_part_of_the_network():
    """A deep copy refuses a tensor with a graph behind it: every network that keeps its features for Grad-CAM."""
    model = Keeps()
    F.cross_entropy(model(X), Y).backward()
    prune(model, 0.3, example_input=X[:1])
    assert model(X).shape == (9, 5)


def test_what_cannot_be_copied_is_named():
    """A lock's own error speaks of pickling, which nobody asked for."""
    model = body()
    model[2].lock = threading.Lock()
    with pytest.raises(UserError, match=r"attribute 'lock' of layer '2'"):
        prune(model, 0.3, example_input=X[:1])
    assert model[2].out_channels == 12


def test_an_attached_pruner_of_error_maps_is_named():
    """Its forwards would run the caller's own layers in place of the copy's; that was called a misunderstood join."""
    model = ThreeBranches()
    with ErrorMapPruner(model, keep=0.5), pytest.raises(UserError, match=r"ErrorMapPruner .*attached"):
        prune(model, 0.3, example_input=X[:1])


def test_prunes_inside_inference_mode():
    """Evaluation code around pruning often has it, and tensors made there can never be trained."""
    model = ThreeBranches()
    with torch.inference_mode():
        prune(model, 0.4, example_input=torch.zeros(1, 3, 14, 14))
    F.cross_entropy(model(X), Y).backward()


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("batches", [[9], [8, 1], [2, 7]])
def test_norms_of_the_batch_never_meet_one_instance(samples, batches):
    """BatchNorm without running statistics has none for one instance: 9 samples, as 8 and 1, ended the ranking."""

    def make() -> nn.Module:
        head = nn.Sequential(
            nn.Linear(12, 10), nn.BatchNorm1d(10, track_running_stats=False), nn.Linear(10, 5)
        )
        return nn.Sequential(*body()[:-1], head)

    model = make()
    data = list(zip(X.split(batches), Y.split(batches), strict=True))
    topology = prune(model, 0.3, example_input=X[:samples], criterion="taylor", batches=data)
    assert parameters(topology.rebuild(make)) == parameters(model)


class Attending(nn.Module):
    """A small vision transformer: patches, a class token, one block."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 32, 7, 7), nn.Parameter(torch.zeros(1, 1, 32))
        self.norm1, self.norm2, self.qkv, self.out = (
            *(nn.LayerNorm(32) for _ in "12"),
            nn.Linear(32, 96),
            nn.Linear(32, 32),
        )
        self.wide, self.narrow, self.head = nn.Linear(32, 128), nn.Linear(128, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1)
        q, k, v = self.qkv(self.norm1(x)).view(*x.shape[:2], 3, 4, 8).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return self.head((x + self.narrow(F.gelu(self.wide(self.norm2(x)))))[:, 0])


@pytest.mark.parametrize("criterion", ["l1", "taylor"])
def test_attention_keeps_its_channels(criterion):
    """Index mapping over attention windows once took 16 GB; the hidden layers of a transformer cut well."""
    model = Attending()
    prune(model, 0.4, example_input=X[:1], criterion=criterion, batches=[(X, Y)])
    assert (model.patch.out_channels, model.qkv.out_features) == (32, 96)
    assert model.wide.out_features < 64
    assert model(X).shape == (9, 5)


class Recurrent(nn.Module):
    """A convolution, a GRU, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru = nn.Conv1d(3, 8, 3), nn.GRU(8, 16, batch_first=True)
        self.hidden, self.head = nn.Linear(16, 64), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(
            torch.relu(self.hidden(self.gru(torch.relu(self.conv(x)).transpose(1, 2))[0][:, -1]))
        )


def test_recurrent_layers_keep_their_channels():
    """What a GRU reads and writes stays; what follows is cut."""
    model = Recurrent()
    prune(model, 0.2, example_input=torch.zeros(1, 3, 20))
    assert (model.conv.out_channels, model.hidden.in_features) == (8, 16)
    assert model.hidden.out_features < 64
    assert model(torch.zeros(2, 3, 20)).shape == (2, 5)
