"""Error-map pruning: the gradients it gives, and which maps are kept."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.models import build
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.error_map.scores import keep_best, kept_channels
from fedge.training.loop import train


def drop(kept: Tensor):
    """A gradient hook that zeroes every channel but the kept ones."""

    def hook(error_BCHW: Tensor) -> Tensor:
        mask_C = torch.zeros(error_BCHW.shape[1], dtype=error_BCHW.dtype)
        mask_C[kept] = 1
        return error_BCHW * mask_C[None, :, None, None]

    return hook


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()} | {
        "x": x.grad.clone()
    }


def pruned_and_reference(model: nn.Sequential, x: Tensor, blocks: dict[str, int], **options):
    """Gradients by the pruner, and by a dense backward whose error is zeroed where a block ends.

    `blocks` names the convolutions and the position of the last layer of each one's block.
    """
    x = x.clone().requires_grad_()
    target = torch.linspace(0.5, 1.5, model(x).numel(), dtype=x.dtype)
    model.zero_grad()
    with ErrorMapPruner(model, **options) as pruner:
        (model(x).flatten() * target).sum().backward()
    ours = gradients(model, x)
    model.zero_grad()
    x.grad = None
    out = x
    for position, layer in enumerate(model):
        out = layer(out)
        for name, last in blocks.items():
            if position == last:
                out.register_hook(drop(pruner.kept[name]))
    (out.flatten() * target).sum().backward()
    return ours, gradients(model, x)


def assert_close(ours: dict[str, Tensor], reference: dict[str, Tensor], tolerance: float) -> None:
    for name, expected in reference.items():
        scale = max(1.0, float(expected.abs().max()))
        assert (ours[name] - expected).abs().max() <= tolerance * scale, name


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3, "depthwise"]))
    inputs = draw(st.integers(1, 6)) * (1 if groups == "depthwise" else groups)
    width = inputs if groups == "depthwise" else groups
    outputs = width * draw(st.integers(1, 5))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.sampled_from([0, 1, 2, "same"]))
    stride = 1 if padding == "same" else draw(st.integers(1, 2))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "circular"]))
    return nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=padding, dilation=draw(st.integers(1, 2)),
        groups=width, bias=draw(st.booleans()), padding_mode=mode,
    )  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@settings(max_examples=25, deadline=None)
@given(
    convolution=convolutions(),
    keep=st.sampled_from([0.1, 0.25, 0.5, 0.9]),
    score=st.sampled_from(["error", "paper", "product", "random"]),
    batch=st.integers(1, 3),
)
def test_any_convolution_has_the_gradients_of_zeroed_error_maps(
    dtype, tolerance, convolution, keep, score, batch
):
    """If this fails, some stride, padding, dilation, group count or bias trains on wrong gradients."""
    model = nn.Sequential(convolution).to(dtype)
    x = torch.randn(batch, convolution.in_channels, 7, 8, dtype=dtype)
    ours, reference = pruned_and_reference(model, x, {"0": 0}, keep=keep, score=score)
    assert_close(ours, reference, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_a_block_is_pruned_with_its_norm_and_activation(dtype, tolerance, trained, affine):
    """If this fails, batch norm's or ReLU's part of the backward is wrong, trained or frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, affine=affine), nn.ReLU(),
        nn.Conv2d(8, 20, 3, stride=2), nn.BatchNorm2d(20, affine=affine),
        nn.Conv2d(20, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 5),
    ).to(dtype)  # fmt: skip
    model(torch.randn(8, 3, 9, 9, dtype=dtype))
    model.train(trained)
    x = torch.randn(4, 3, 9, 9, dtype=dtype)
    ours, reference = pruned_and_reference(model, x, {"0": 2, "3": 4, "5": 6}, keep=0.5)
    assert_close(ours, reference, tolerance)


class ByHand(nn.Sequential):
    """Calls its layers itself, as a network of named layers does."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x


def once_pruned(model: nn.Sequential, x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    model.zero_grad()
    with ErrorMapPruner(model, keep=0.25):
        model(x).square().sum().backward()
    return gradients(model, x)


def test_a_block_run_layer_by_layer_has_the_gradients_of_a_block_as_one():
    """If this fails, a network's gradients depend on whether it is written with nn.Sequential, or on who listens."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    model, by_hand = nn.Sequential(*layers), ByHand(*layers)
    x = torch.randn(4, 3, 9, 9)
    as_one = once_pruned(model, x)
    assert_close(once_pruned(by_hand, x), as_one, 1e-5)
    heard = []
    for layer in layers:
        layer.register_forward_hook(lambda layer, *_: heard.append(layer))
    assert_close(once_pruned(model, x), as_one, 1e-5)
    assert heard == list(layers)


def test_a_single_value_per_channel_is_refused_as_by_pytorch():
    """If this fails, a batch of one at the network's end trains on nan."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    with ErrorMapPruner(model, keep=0.5), pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.randn(1, 1, 3, 3))


def test_an_inner_tensor_with_a_second_reader_gets_both_gradients():
    """If this fails, a network that reads a convolution's output twice (pre-activation residuals) loses a gradient."""

    class TwoReaders(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    torch.manual_seed(0)
    model, x = TwoReaders().double(), torch.randn(3, 2, 6, 6).double()
    target = torch.randn(3, 4, 4, 4).double()
    with ErrorMapPruner(model, keep=0.99) as pruner:  # rounds to all four channels: nothing is dropped
        (model(x) * target).sum().backward()
    ours = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    (model(x) * target).sum().backward()
    assert len(pruner.kept["conv"]) == 4
    for mine, parameter in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-10, atol=1e-10)


def test_an_activation_in_place_between_convolution_and_norm_is_not_skipped():
    """If this fails, conv -> ReLU(inplace) -> norm is taken for conv -> norm, and trains on wrong gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4)).double()
    x = torch.randn(3, 2, 6, 6).double()
    ours, reference = pruned_and_reference(model, x, {"0": 1}, keep=0.5)
    assert_close(ours, reference, 1e-10)


def test_keep_one_is_pytorchs_own_backward_bit_for_bit():
    """If this fails, `keep = 1` is no longer plain training."""
    x, y = torch.randn(6, 3, 16, 16), torch.randint(0, 10, (6,))
    model = build("resnet8", num_classes=10, in_channels=3, image_size=16)
    F.cross_entropy(model(x), y).backward()
    plain = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with ErrorMapPruner(model, keep=1):
        F.cross_entropy(model(x), y).backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(plain, model.parameters(), strict=True))


def test_the_scores_by_hand():
    """If this fails, equation 11 or one of its variants ranks channels wrongly."""
    from fedge.training.error_map.scores import SCORES

    weight = torch.tensor([3.0, -1.0, 1.0, -1.0]).reshape(4, 1, 1, 1)  # norms 3, 1, 1, 1, mean 1.5
    errors = torch.tensor([2.0, 6.0, 3.0, 1.0])  # mean 3
    generator = torch.Generator()
    assert SCORES["error"](weight, errors, generator).tolist() == [2, 6, 3, 1]
    expected = torch.tensor([2 + 2 / 3, 2 / 3 + 2, 2 / 3 + 1, 1.0])
    torch.testing.assert_close(SCORES["paper"](weight, errors, generator), expected)
    assert SCORES["product"](weight, errors, generator).tolist() == [6, 6, 3, 1]
    assert keep_best(torch.tensor([1.0, 4, 3, 2]), 2).tolist() == [1, 2]
    assert keep_best(torch.tensor([9.0, 8, 1, 2]), 2, groups=2).tolist() == [0, 3]
    assert [kept_channels(16, keep) for keep in (0.01, 0.25, 0.5, 1)] == [1, 4, 8, 16]


def test_the_kept_maps_are_those_with_the_largest_error():
    """If this fails, the pruner keeps other channels than the ones with the largest ||delta_j||."""
    model = nn.Sequential(nn.Conv2d(1, 4, 1))
    out_scale = torch.tensor([1.0, 5.0, 3.0, 0.5]).reshape(1, 4, 1, 1)
    with ErrorMapPruner(model, keep=0.5) as pruner:
        (model(torch.randn(2, 1, 3, 3)) * out_scale).sum().backward()
    assert pruner.kept["0"].tolist() == [1, 2]
    assert (model[0].weight.grad.flatten() != 0).tolist() == [False, True, True, False]


def test_first_layers_warm_up_and_alternate_epochs_stay_dense():
    """If this fails, an option that should leave a backward dense prunes it, or the other way round."""
    model = build("lenet", num_classes=10, in_channels=1, image_size=28)
    batches = [(torch.randn(2, 1, 28, 28), torch.tensor([1, 2]))] * 2
    sgd = torch.optim.SGD(model.parameters(), 0.01)

    def backward_macs(pruner: ErrorMapPruner) -> int:
        stats = train(model, batches, optimizer=sgd, error_maps=pruner)
        return stats.macs_error_propagation + stats.macs_weight_gradient

    dense = backward_macs(ErrorMapPruner(model, keep=1))
    pruned = backward_macs(ErrorMapPruner(model, keep=0.25))
    assert pruned < 0.6 * dense
    assert backward_macs(ErrorMapPruner(model, keep=0.25, dense_first=2)) == dense
    assert backward_macs(ErrorMapPruner(model, keep={"conv2": 0.25})) > pruned
    assert backward_macs(ErrorMapPruner(model, keep=0.25, warmup_steps=1)) == (dense + pruned) / 2
    alternating = ErrorMapPruner(model, keep=0.25, alternate=True)
    assert [backward_macs(alternating) for _ in range(4)] == [dense, pruned, dense, pruned]


@pytest.mark.parametrize(
    "options",
    [
        {"keep": 0},
        {"keep": 1.5},
        {"keep": {"nowhere": 0.5}},
        {"keep": {"nowhere": 1}},
        {"score": "loss"},
        {"dense_first": -1},
        {"warmup_steps": -1},
    ],
)
def test_wrong_options_are_refused_in_one_line(options):
    """If this fails, a wrong scenario trains silently or ends in a traceback."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3))
    with pytest.raises(UserError) as error:
        ErrorMapPruner(model, **options)
    assert "\n" not in str(error.value)


def test_autocast_is_refused_where_a_backward_would_be_pruned():
    """If this fails, mixed precision ends in an error of PyTorch's that names neither cause nor cure."""
    model, x = nn.Sequential(nn.Conv2d(2, 4, 3)), torch.randn(2, 2, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with ErrorMapPruner(model, keep=0.5), pytest.raises(UserError, match="autocast"):
            model(x)
        with ErrorMapPruner(model, keep=1):
            model(x).sum().backward()


STRIDED_SHORTCUT = """
import torch
from torch import nn
from fedge.training.error_map.pruner import ErrorMapPruner
torch.set_num_threads(2)
layer = nn.Conv2d(9, 10, 1, stride=2)
for _ in range(100):
    x = torch.randn(47, 9, 16, 16, requires_grad=True)
    with ErrorMapPruner(layer, keep=0.5):
        layer(x).sum().backward()
"""


def test_a_strided_point_kernel_survives_two_threads() -> None:
    """Breaks if oneDNN gets the weight gradient that it computes out of bounds: the process would die."""
    subprocess.run([sys.executable, "-c", STRIDED_SHORTCUT], check=True, timeout=120)


class ZeroNormResidual(nn.Module):
    """One residual branch whose norm starts at zero, as practice has it for residual networks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.branch = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 4)
        nn.init.zeros_(self.branch[1].weight)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = F.relu(self.stem(x_BCHW))
        return self.head(F.relu(x_BCHW + self.branch(x_BCHW)).mean((2, 3)))


def test_norms_that_start_at_zero_do_not_stay_there():
    """If this fails, the first channels kept are the only ones ever kept: gamma = 0 elsewhere ranks them last."""
    torch.manual_seed(0)
    model, batches = ZeroNormResidual(), torch.randn(200, 16, 1, 8, 8)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    with ErrorMapPruner(model, 0.25):
        for x_BCHW in batches:
            y_B = (x_BCHW.mean((1, 2, 3)) > 0).long() + 2 * (x_BCHW.std((1, 2, 3)) > 1).long()
            optimizer.zero_grad()
            F.cross_entropy(model(x_BCHW), y_B).backward()
            optimizer.step()
    assert int((model.branch[1].weight != 0).sum()) >= 8  # 4 are kept at a time
