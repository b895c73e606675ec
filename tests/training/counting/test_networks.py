"""Networks of every kind: what a training step of them costs, against torch's counter and by hand."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedge.errors import UserError
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.loop import train
from fedge.training.macs import count_forward, count_macs
from fedge.training.quantization import Quantization
from tests.training.judge import Judge, judged_macs

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """`body` of x [B, 3, 8, 8] as 8 rows of 24 numbers, and a linear head; `parts` are its layers and parameters."""

    def __init__(self, body: Callable[["Net", Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.stem, self.head, self.body = nn.Linear(24, 16), nn.Linear(16, 4), body

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.body(self, torch.relu(self.stem(x_BCHW.reshape(-1, 8, 24)))).mean(1))


class UNet(nn.Module):
    """Down and up again; a class for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.up, self.last = nn.ConvTranspose2d(12, 8, 2, stride=2, groups=4), nn.Conv2d(16, 4, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        first = torch.relu(self.norm(self.first(x_BCHW)))
        return self.last(torch.cat([first, self.up(torch.relu(self.down(first)))], 1))


class Twice(torch.autograd.Function):
    """x @ w with a backward pass of its own, which multiplies once more than it had to."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, error):
        x, w = ctx.saved_tensors
        return error @ w.T @ w @ w.T, (x.transpose(1, 2) @ error).sum(0)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) / 4)


def only_in_training(net: Net, x: Tensor) -> Tensor:
    return x + net.side(x) if net.training else x


def dead_branch(net: Net, x: Tensor) -> Tensor:
    net.side(x)
    return x


def without_gradient(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        beside = net.side(x)
    return x + beside


def looks_at_numbers(net: Net, x: Tensor) -> Tensor:
    return net.side(x) if x.abs().sum().item() >= 0 else x


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "transposed": UNet,
    "attention": lambda: Net(
        lambda n, x: n.a(x, x, x, need_weights=False)[0], a=nn.MultiheadAttention(16, 2, batch_first=True)
    ),
    "encoder": lambda: Net(lambda n, x: n.a(x), a=nn.TransformerEncoderLayer(16, 4, 32, 0.1, batch_first=True)),
    "gru": lambda: Net(lambda n, x: n.a(x)[0], a=nn.GRU(16, 8, 2, batch_first=True, bidirectional=True)),
    "rnn": lambda: Net(lambda n, x: n.a(x)[0], a=nn.RNN(16, 16, batch_first=True)),
    "cell": lambda: Net(lambda n, x: n.a(x[:, 0])[:, None], a=nn.GRUCell(16, 16)),
    "bare weight": lambda: Net(lambda n, x: F.linear(x, n.w), w=weight(16, 16)),
    "matmul": lambda: Net(lambda n, x: x @ x.transpose(1, 2) @ x),
    "einsum": lambda: Net(lambda n, x: torch.einsum("bti,ij,bsj->bts", x, n.w, x) @ x, w=weight(16, 16)),
    "low rank": lambda: Net(lambda n, x: x @ (n.u @ n.v), u=weight(16, 3), v=weight(3, 16)),
    "over the batch": lambda: Net(lambda n, x: x + (x.flatten(1) @ x.flatten(1).T @ x.flatten(1)).view_as(x)),
    "frozen": lambda: Net(lambda n, x: n.side(x), side=nn.Linear(16, 16).requires_grad_(False)),
    "only in training": lambda: Net(only_in_training, side=nn.Linear(16, 16)),
    "dead branch": lambda: Net(dead_branch, side=nn.Linear(16, 16)),
    "without gradient": lambda: Net(without_gradient, side=nn.Linear(16, 16)),
    "checkpointed": lambda: Net(lambda n, x: checkpoint(n.side, x, use_reentrant=False), side=nn.Linear(16, 16)),
    "reentrant": lambda: Net(lambda n, x: checkpoint(n.side, x, use_reentrant=True), side=nn.Linear(16, 16)),
    "own backward": lambda: Net(lambda n, x: Twice.apply(x, n.w), w=weight(16, 16)),
    "looks at numbers": lambda: Net(looks_at_numbers, side=nn.Linear(16, 16)),
    "weight norm": lambda: Net(lambda n, x: n.a(x), a=nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))),
    "static norm": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(192, 12), nn.BatchNorm1d(12, track_running_stats=False), nn.Linear(12, 4)
    ),
    "grouped": lambda: nn.Sequential(
        nn.Conv2d(3, 12, 3, groups=3), nn.Conv2d(12, 12, 3, groups=4), nn.Flatten(), nn.Linear(192, 4)
    ),
}  # fmt: skip


RECOMPUTED = {"attention": 6 * 8 * 8 * 16}
"""Scores that the CPU's own kernel makes again in its backward pass, by `batch`; the judge's matrix products do not."""


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, *SHAPE, generator=generator), torch.arange(size) % 4


def targets_for(model: nn.Module, y_B: Tensor) -> Tensor:
    return y_B[:, None, None].expand(-1, *SHAPE[1:]).contiguous() if isinstance(model, UNet) else y_B


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_of_any_network_costs_what_torchs_counter_says(name):
    """If this fails, a network that PyTorch trains is refused here, or its cost is not what runs."""
    torch.manual_seed(0)
    model = NETWORKS[name]().train()
    x, y = batch()
    y = targets_for(model, y)
    expected = judged_macs(lambda: F.cross_entropy(model(x), y))
    model.zero_grad(set_to_none=True)
    stats = train(model, [(x, y)], optimizer=torch.optim.SGD(model.parameters(), 0.01))
    assert stats.macs_done == pytest.approx(expected + RECOMPUTED.get(name, 0), rel=1e-9)
    assert stats.macs_dense == stats.macs_done


@pytest.mark.parametrize("name", NETWORKS)
def test_error_maps_leave_dense_what_they_cannot_prune_and_count_it(name):
    """If this fails, error maps cannot be used beside attention or recurrence, or its backward pass is free."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    if name != "transposed":
        model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), model)
    x, y = batch()
    y = y if name != "transposed" else targets_for(model, y)
    sgd = torch.optim.SGD(model.parameters(), 0.01)
    dense = train(model, [(x, y)], optimizer=sgd)
    kept_all = train(model, [(x, y)], optimizer=sgd, error_maps=ErrorMapPruner(model, keep=1))
    assert kept_all.macs_done == dense.macs_done == kept_all.macs_dense
    pruner = ErrorMapPruner(model, keep=0.4)
    with Judge() as judge, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        pruned = train(model, [(x, y)], optimizer=sgd, error_maps=pruner)
    assert pruned.macs_done < dense.macs_done
    assert pruned.macs_done == pytest.approx(judge.get_total_flops() / 2 + RECOMPUTED.get(name, 0), rel=1e-9)


def test_lstm_and_bilinear_by_hand():
    """If this fails, layers that torch's counter does not see are free, or charged for what they do not do."""
    steps, fed, hidden = 8, 24, 5

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.mix = nn.LSTM(fed, hidden, batch_first=True), nn.Bilinear(hidden, hidden, 4)

        def forward(self, x_BCHW: Tensor) -> Tensor:
            last_BF = self.lstm(x_BCHW.reshape(-1, steps, fed))[0][:, -1]
            return self.mix(last_BF, last_BF)

    layers = {layer.name: layer for layer in count_macs(Last(), SHAPE).layers}
    of_input, of_state = steps * 4 * hidden * fed, steps * 4 * hidden * hidden
    assert layers["lstm"].forward == of_input + of_state
    assert layers["lstm"].training == 2 * of_input + 3 * of_state  # the picture needs no gradient
    assert layers["mix"].forward == 2 * hidden * hidden * 4
    assert layers["mix"].training == 4 * layers["mix"].forward  # two factors and a weight


def test_attention_by_hand():
    """If this fails, a transformer's attention is missed on a CPU."""
    model = NETWORKS["attention"]()
    tokens, width = 8, 16
    layer = next(layer for layer in count_macs(model, SHAPE).layers if layer.name == "a")
    projections, scores = 4 * tokens * width * width, tokens * tokens * width
    assert layer.forward == projections + 2 * scores
    assert layer.weight_gradient == projections
    assert layer.error_propagation == projections + 5 * scores  # the kernel makes its scores again


def test_costs_that_are_not_per_instance_follow_the_batch():
    """If this fails, a product of two weights is charged once for every instance, or one over the batch too little."""
    shared, across = NETWORKS["low rank"](), NETWORKS["over the batch"]()
    assert not count_macs(shared, SHAPE).per_instance
    assert not count_macs(across, SHAPE).per_instance
    assert count_macs(NETWORKS["gru"](), SHAPE).per_instance
    costs = []
    for size in (4, 8):
        x, y = batch(size)
        stats = train(shared, [(x, y)], optimizer=torch.optim.SGD(shared.parameters(), 0.01))
        costs.append(stats.macs_done)
    assert 2 * costs[0] - costs[1] == pytest.approx(3 * 16 * 3 * 16, abs=20)


def test_a_look_costs_a_forward_pass_of_evaluation():
    """If this fails, a head that runs in training only is charged to a filter that looks."""
    model = NETWORKS["only in training"]()
    side = 8 * 16 * 16
    attending = NETWORKS["attention"]()
    assert count_forward(attending, SHAPE).forward == count_macs(attending, SHAPE).forward
    look = count_forward(model, SHAPE)
    assert count_macs(model, SHAPE).forward - look.forward == side
    assert (look.backward, look.per_instance) == (0, True)


@pytest.mark.parametrize("operator", [torch.linalg.inv, torch.matrix_exp])
def test_what_cannot_be_counted_is_refused(operator):
    """If this fails, a missing cost passes for a saving."""
    model = Net(lambda n, x: x @ operator(n.w), w=weight(16, 16))
    with pytest.raises(UserError, match="not known here"):
        count_macs(model, SHAPE)


def test_a_network_that_cannot_run_is_one_line():
    """If this fails, a wrong shape ends in a traceback."""
    with pytest.raises(UserError, match=r"cannot run on a batch of \[2, 5\] in training mode"):
        count_macs(nn.Sequential(nn.Linear(4, 2)), (5,))


@pytest.mark.parametrize("name", ["gru", "attention"])
def test_quantisation_refuses_what_it_would_not_round(name):
    """If this fails, products in float are charged as 8-bit."""
    with pytest.raises(
        UserError, match=r"'a' is a (GRU|MultiheadAttention), whose products are not quantised"
    ):
        Quantization(NETWORKS[name]())
    bare = NETWORKS["bare weight"]()
    with pytest.raises(UserError, match="layer '' is a Net, whose products are not quantised"):
        train(
            bare,
            [batch()],
            optimizer=torch.optim.SGD(bare.parameters(), 0.01),
            quantization=Quantization(bare),
        )


class Restless(nn.Module):
    """Changes all that a forward pass can change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.rnn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.GRU(36, 4)
        self.calls, self.kept, self.noise = 0, [], torch.Generator().manual_seed(3)
        self.extra = [nn.Parameter(torch.ones(4, 4))]  # used, and not registered

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.calls += 1
        x = self.norm(self.conv(x_BCHW)).flatten(2)
        self.last = x
        self.kept.append(x)
        torch.rand(1, generator=self.noise)
        random.random(), np.random.rand()
        return F.dropout(self.rnn(x)[0].mean(1) @ self.extra[0], 0.5)


@pytest.mark.parametrize("large", [False, True], ids=["computed", "fake"])
def test_counting_leaves_everything_as_it_was(large, monkeypatch):
    """If this fails, looking at a network's cost changes its training."""
    if large:
        monkeypatch.setattr("fedge.training.macs.SMALL", 0)
    model = Restless().eval()
    model.conv.train()
    heard: list[object] = []
    model.norm.register_full_backward_hook(lambda *_: heard.append(1))
    model.extra[0].grad = torch.full((4, 4), 7.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = {name: id(tensor) for name, tensor in model.named_parameters()}
    states = (
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        model.noise.get_state(),
    )
    table = count_macs(model, SHAPE)
    assert {"conv", "rnn", ""} <= {layer.name for layer in table.layers}
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist() and torch.equal(states[3], model.noise.get_state())
    assert ids == {name: id(tensor) for name, tensor in model.named_parameters()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert (model.calls, model.kept, hasattr(model, "last")) == (0, [], False)
    assert (model.training, model.conv.training, model.norm.training) == (False, True, False)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model.extra[0].grad, torch.full((4, 4), 7.0))
    assert heard == []
    model(torch.randn(2, *SHAPE)).sum().backward()  # and it still trains, and its hook is still there
    assert heard == [1]


def test_a_counter_of_the_callers_does_not_see_the_count():
    """If this fails, whoever counts a call of `train` by torch's own counter counts passes that trained nothing."""
    with Judge() as judge:
        count_macs(NETWORKS["grouped"](), SHAPE)
    assert judge.get_total_flops() == 0


def test_what_changed_is_counted_anew_and_what_did_not_is_not():
    """If this fails, a network frozen or switched between epochs is charged for what it was before."""
    model = NETWORKS["only in training"]()
    first = count_macs(model, SHAPE)
    assert count_macs(model, SHAPE) is first
    model.side.weight.requires_grad_(False)
    assert count_macs(model, SHAPE).weight_gradient == first.weight_gradient - 8 * 16 * 16
    model.body = lambda net, x: x
    assert count_macs(model, SHAPE).forward == first.forward - 8 * 16 * 16
