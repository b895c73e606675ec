"""Plain training of layers of few channels: PyTorch's gradients, by our own passes, and only where they pay."""

import copy
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedge.models import build
from fedge.training import few_channels
from fedge.training.few_channels import FewChannels
from fedge.training.loop import train
from fedge.training.macs import count_macs
from fedge.training.native import library
from fedge.training.pruned_backward import PrunedBlock, PrunedConv
from fedge.training.pruning import prune

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")


@pytest.fixture(autouse=True)
def _from_one_pixel_on(monkeypatch):
    """Small batches, which would be left to PyTorch, do for the tests of what is computed."""
    monkeypatch.setattr(few_channels, "FEWEST_PIXELS", 1)


def block(inputs: int, channels: int, **options) -> list[nn.Module]:
    return [nn.Conv2d(inputs, channels, 3, **options), nn.BatchNorm2d(channels), nn.ReLU()]


class ByHand(nn.Module):
    """As many write it: attributes in place of a Sequential, one convolution without a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.narrow, self.narrow_norm = nn.Conv2d(16, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.last = nn.Conv2d(3, 20, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).relu()
        return self.last(self.narrow_norm(self.narrow(y)).relu()).mean((2, 3))


def pictures(count: int = 3, size: int = 12, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(count, 3, size, size, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last)


def numbers_of(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output, gradients and running statistics of one step."""
    out = model(x)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {"out": out.detach()} | gradients | dict(model.named_buffers())


def nodes_of(out: Tensor) -> list[str]:
    """Kinds of the autograd nodes behind it."""
    waiting, seen = [out.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return [type(node).__name__ for node in seen]


def own(out: Tensor) -> int:
    """How many convolutions have been run by our passes."""
    kinds = PrunedBlock._backward_cls.__name__, PrunedConv._backward_cls.__name__
    return sum(name in kinds for name in nodes_of(out))


widths = st.lists(st.integers(1, 20), min_size=2, max_size=4)


@settings(max_examples=25, deadline=None)
@given(widths=widths, stride=st.integers(1, 2), padding=st.integers(0, 2), bias=st.booleans())
def test_gradients_are_pytorchs(widths, stride, padding, bias):
    """If this fails, a pruned network is trained in another direction than a PyTorch user's."""
    torch.manual_seed(0)
    layers, inputs = [], 3
    for width in widths:
        layers += block(inputs, width, stride=stride if inputs == 3 else 1, padding=padding, bias=bias)
        inputs = width
    model = nn.Sequential(*layers).double()
    x = pictures(size=18)
    expected = numbers_of(copy.deepcopy(model), x)
    with FewChannels(model):
        ours = numbers_of(model, x)
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-9, atol=1e-9, msg=name)


def test_layers_of_a_hand_written_network_take_part():
    """If this fails, only networks made of our own blocks train faster, or a norm by itself is skipped."""
    torch.manual_seed(0)
    model = ByHand().double()
    expected = numbers_of(copy.deepcopy(model), pictures())
    with FewChannels(copy.deepcopy(model)) as spare:
        assert own(spare.model(pictures())) == 2
    with FewChannels(model):
        ours = numbers_of(model, pictures())
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("inputs", "channels", "expected"), [(16, 8, 1), (8, 16, 1), (16, 9, 0), (9, 16, 0), (16, 16, 0)]
)
def test_only_layers_of_few_channels_take_part(inputs, channels, expected):
    """If this fails, wide layers leave PyTorch's faster passes, and with them its very numbers."""
    x = pictures().repeat(1, 6, 1, 1)[:, :inputs].contiguous(memory_format=torch.channels_last)
    model = nn.Sequential(*block(inputs, channels)).double()
    with FewChannels(model):
        assert own(model(x.requires_grad_())) == expected


@pytest.mark.parametrize(
    ("x", "options"),
    [
        (pictures().contiguous(), {}),
        (pictures(size=8), {}),
        (pictures(dtype=torch.bfloat16), {}),
        (pictures(), {"dilation": 2}),
    ],
    ids=["NCHW", "small maps", "bfloat16", "dilation"],
)
def test_where_it_does_not_pay_it_is_pytorch_bit_for_bit(x, options):
    """If this fails, C reads what it does not know, or training becomes slower than PyTorch's."""
    torch.manual_seed(0)
    model = nn.Sequential(*block(3, 16), *block(16, 4, **options), nn.Flatten(), nn.LazyLinear(5)).to(x.dtype)
    model(x)
    expected = numbers_of(copy.deepcopy(model), x)
    with FewChannels(model):
        ours = numbers_of(model, x)
    assert all(torch.equal(ours[name], value) for name, value in expected.items())


@pytest.mark.parametrize(("instances", "expected"), [(14, 0), (15, 1)])
def test_small_batches_are_left_to_pytorch(monkeypatch, instances, expected):
    """If this fails, a device with batches of a few pixels trains more slowly than with PyTorch's passes."""
    monkeypatch.setattr(few_channels, "FEWEST_PIXELS", 15 * 12 * 12)
    model = nn.Sequential(*block(3, 4)).double()
    with FewChannels(model):
        assert own(model(pictures(instances))) == expected


def test_mixed_precision_is_left_to_pytorch():
    """If this fails, training under autocast mixes types and stops."""
    model = nn.Sequential(*block(3, 4))
    with FewChannels(model), torch.autocast("cpu"):
        assert own(model(pictures(dtype=torch.float32))) == 0


def test_evaluation_and_somebody_elses_forward_are_left_alone():
    """If this fails, a layer that was given another forward computes something else while it is trained."""
    model = nn.Sequential(*block(3, 4)).double()
    model[0].forward = lambda x: 2 * x[:, [0, 1, 2, 0]]
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    with FewChannels(model) as entered:
        assert entered.entered
        assert own(model(pictures())) == 0
        with torch.no_grad():
            model(pictures())
    for name, module in model.named_modules():
        assert module.__dict__.keys() == before[name].keys()


def pruned_resnet() -> nn.Module:
    model = build("resnet8", num_classes=4, in_channels=3, image_size=16, seed=5)
    prune(model, 0.7, example_input=torch.zeros(1, 3, 16, 16), criterion="random")
    return model


def test_train_uses_it_and_counts_what_flop_counter_mode_counts():
    """If this fails, the MACs reported for a pruned network are not those that were done."""
    model, (x, y) = pruned_resnet(), (pictures(4, 16, torch.float32), torch.arange(4))
    table = count_macs(model, (3, 16, 16))
    with FlopCounterMode(display=False) as judge:
        stats = train(model, [(x, y)], optimizer=torch.optim.SGD(model.parameters(), 0.01))
    assert torch.ops.fedge.convolve in judge.get_flop_counts()["Global"]
    assert stats.macs_done == 4 * table.training
    counting = table.forward  # train counts an instance's forward pass before it begins
    assert judge.get_total_flops() == 2 * (stats.macs_done + counting)
    assert "forward" not in model.stem.conv.__dict__


def test_trained_networks_differ_by_rounding_alone(monkeypatch):
    """If this fails, a pruned network is trained to something else where there is a C compiler."""
    batches = [(pictures(8, 16, torch.float32), torch.arange(8) % 4)] * 3
    trained = []
    for native in ("1", "0"):
        monkeypatch.setenv("FEDGE_NATIVE", native)
        library.cache_clear()
        model = pruned_resnet()
        train(model, batches, optimizer=torch.optim.SGD(model.parameters(), 0.01))
        trained.append(model.state_dict())
    library.cache_clear()
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name], rtol=1e-3, atol=1e-4, msg=name)
