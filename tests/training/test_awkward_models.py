"""Networks of other floats, of words, lazy, frozen or checkpointed: a right number, or one line."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedge.device.memory.peak import peak_training_memory
from fedge.errors import UserError
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.loop import train
from fedge.training.macs import count_macs
from fedge.training.pruning.one_shot import prune
from tests.training.judge import judged_macs

SHAPE = (3, 8, 8)


def network(head: int = 5) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.Flatten(),
        nn.Linear(96, head),
    )


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(1)).to(dtype), torch.arange(6) % 5


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_memory_is_that_of_the_networks_own_floats(dtype: torch.dtype) -> None:
    """Breaks if a network in half precision, which trains, has no memory figure or one of 32 bits."""
    sizes = [
        peak_training_memory(lambda d=d: network().to(d), batch_size=64, input_shape=SHAPE)
        for d in (torch.float32, dtype)
    ]
    assert sizes[1] / sizes[0] == pytest.approx(dtype.itemsize / 4, rel=0.05)


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        raise ValueError("first line\nsecond line")


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.inner(x_BCHW).detach()


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (Fails, "ValueError: first line$"),
        (Detached, "does not require grad"),
        (nn.Flatten, "empty parameter"),
    ],
)
def test_memory_of_what_cannot_train_is_one_line(make, line: str) -> None:
    """Breaks if the network's own mistake ends in a traceback through the estimate."""
    with pytest.raises(UserError, match=f"cannot run on a batch of .*{line}") as caught:
        peak_training_memory(make, batch_size=4, input_shape=SHAPE)
    assert "\n" not in str(caught.value)


def frozen() -> nn.Module:
    return network().requires_grad_(False)


@pytest.mark.parametrize("make", [Detached, frozen])
def test_a_network_in_which_nothing_can_change_is_not_trained(make) -> None:
    """Breaks if a detached output ends in autograd's words, or trains nothing without any."""
    model = make()
    with pytest.raises(UserError, match="nothing can be trained"):
        train(model, [batch()], optimizer=sgd(model))


def test_a_lazy_layer_is_named() -> None:
    """Breaks if a layer without a shape ends in a RuntimeError from inside the count."""
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5))
    with pytest.raises(UserError, match=r"layer of '0\.weight' has no shape"):
        train(model, [batch()], optimizer=sgd(model))
    model(batch()[0])
    train(model, [batch()], optimizer=sgd(model))


class Words(nn.Module):
    """Word numbers [B, T] to classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.gru, self.head = (
            nn.Embedding(20, 6),
            nn.GRU(6, 4, batch_first=True),
            nn.Linear(4, 5),
        )

    def forward(self, word_BT: Tensor) -> Tensor:
        return self.head(self.gru(self.embedding(word_BT))[0][:, -1])


def test_error_maps_beside_word_numbers_are_counted() -> None:
    """Breaks if a network of whole numbers trains without error maps, and is said not to run with them."""
    torch.manual_seed(0)
    model, (_, y_B) = Words(), batch()
    word_BT = torch.arange(6 * 7).reshape(6, 7) % 20
    dense = judged_macs(lambda: nn.functional.cross_entropy(model(word_BT), y_B))
    stats = train(model, [(word_BT, y_B)], optimizer=sgd(model), error_maps=ErrorMapPruner(model, keep=0.5))
    assert stats.macs_done == dense == 6 * count_macs(model, (7,), dtype=torch.int64).training


def test_an_optimizer_that_needs_a_closure_is_told_where_to_go() -> None:
    """Breaks if LBFGS ends in a TypeError about an argument that the caller cannot give."""
    model = network()
    with pytest.raises(UserError, match=r"LBFGS .*device\.counted"):
        train(model, [batch()], optimizer=torch.optim.LBFGS(model.parameters()))


def column(model: nn.Module) -> nn.Module:
    return nn.Sequential(model, nn.Unflatten(1, (5, 1)))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: network(1), "a single logit for each instance"),
        (lambda: network(3), "targets are 0 to 4; 0 to 2 is wanted"),
        (lambda: column(network()), r"targets have the shape \[6\]; \[6, 1\] is wanted"),
    ],
)
def test_pruning_by_data_wants_the_logits_that_training_wants(make, line: str) -> None:
    """Breaks if the same mistake is told in fedge's words by `train` and in torch's by `prune`."""
    with pytest.raises(UserError, match=line):
        prune(make(), 0.3, example_input=batch()[0], criterion="taylor", batches=[batch()])


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 3))
        self.saves = True

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = torch.relu(self.stem(x_BCHW))
        x_BCHW = checkpoint(self.body, x_BCHW, use_reentrant=False) if self.saves else self.body(x_BCHW)
        return self.head(x_BCHW.mean((2, 3)))


def test_a_checkpointed_network_is_ranked_as_it_is_without() -> None:
    """Breaks if layers that run again on the way back are counted as others, or refused in words about zip()."""
    left = []
    for saves in (True, False):
        model = Checkpointed()
        model.saves = saves
        prune(model, 0.4, example_input=batch()[0], criterion="taylor", batches=[batch()])
        left.append({name: tensor.shape for name, tensor in model.state_dict().items()})
    assert left[0] == left[1]
    assert left[0] != {name: tensor.shape for name, tensor in Checkpointed().state_dict().items()}
