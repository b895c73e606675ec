"""direct_convolution.c: PyTorch's convolution and its gradients, of any shape it takes, with any number of threads."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from fedge.training import channelwise, direct_convolution
from fedge.training.geometry import Geometry
from fedge.training.kept_products import weight_gradient

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
precisions = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])


def geometry(stride: int = 1, padding: tuple[int, int] = (1, 1), **options) -> Geometry:
    plain = {
        "kernel": (3, 3),
        "stride": (stride, stride),
        "dilation": (1, 1),
        "groups": 1,
        "depthwise": False,
    }
    return Geometry(padding=padding, **(plain | options))


geometries = st.builds(geometry, st.integers(1, 2), st.tuples(st.integers(0, 2), st.integers(0, 2)))
# B, I, H, W, C: fewer channels and columns than a vector or a tile has, as many, and more.
shapes = st.tuples(*(st.integers(1, most) for most in (5, 40, 12, 40, 70)))
layers = st.tuples(shapes, geometries).filter(lambda layer: min(layer[1].output_size(*layer[0][2:4])) > 0)


def convolution(shape: tuple[int, ...], how: Geometry, dtype: torch.dtype, seed: int) -> tuple[Tensor, ...]:
    """x, weight, bias, and PyTorch's output."""
    instances, inputs, height, width, channels = shape
    generator = torch.Generator().manual_seed(seed)
    sizes = (instances, inputs, height, width), (channels, inputs, 3, 3), (channels,)
    x, weight, bias = (torch.randn(size, generator=generator, dtype=dtype) for size in sizes)
    x = x.contiguous(memory_format=torch.channels_last)
    if seed % 2:
        weight = weight.contiguous(memory_format=torch.channels_last)
    return x, weight, bias, F.conv2d(x, weight, bias, how.stride, how.padding)


def assert_close(ours: Tensor, expected: Tensor, tolerance: float) -> None:
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


@precisions
@settings(max_examples=60, deadline=None)
@given(layer=layers, seed=st.integers(0, 99))
def test_the_output_is_pytorchs(dtype, tolerance, layer, seed):
    """A network attached to error-map pruning would compute other numbers than it does alone."""
    shape, how = layer
    x, weight, bias, expected = convolution(shape, how, dtype, seed)
    assert direct_convolution.takes(x, weight, how)
    assert_close(direct_convolution.convolve(x, weight, bias, how), expected, tolerance)
    assert_close(
        direct_convolution.convolve(x, weight, None, how), expected - bias[:, None, None], 10 * tolerance
    )


@precisions
@settings(max_examples=60, deadline=None)
@given(layer=layers, seed=st.integers(0, 99), keep=st.floats(0.01, 1))
def test_the_error_goes_back_as_through_the_kept_kernels_alone(dtype, tolerance, layer, seed, keep):
    """Layers in front would be trained on a wrong error."""
    shape, how = layer
    x, weight, _, out = convolution(shape, how, dtype, seed)
    channel_K = torch.randperm(len(weight))[: max(1, int(keep * len(weight)))].sort().values
    error = torch.randn_like(out)[:, channel_K]
    expected = torch.nn.grad.conv2d_input(x.shape, weight[channel_K], error, how.stride, how.padding)
    assert_close(direct_convolution.propagate(error, x, weight, channel_K, how), expected, tolerance)


@precisions
@settings(max_examples=60, deadline=None)
@given(layer=layers, seed=st.integers(0, 99), inputs=st.integers(16, 50))
def test_the_kernels_gradient_is_pytorchs(dtype, tolerance, layer, seed, inputs):
    """Weights would be trained in a wrong direction."""
    (instances, _, *image, channels), how = layer
    shape = instances, inputs, *image, channels
    x, weight, _, out = convolution(shape, how, dtype, seed)
    error = torch.randn_like(out)
    expected = torch.nn.grad.conv2d_weight(x, weight.shape, error, how.stride, how.padding)
    assert direct_convolution.takes(x, weight, how)
    assert_close(direct_convolution.kernel_gradient(error, x, how), expected, tolerance)


@precisions
@settings(max_examples=30, deadline=None)
@given(
    inputs=st.integers(1, 15), kept=st.integers(16, 40), padding=st.integers(0, 1), image=st.integers(8, 12)
)
def test_few_inputs_take_the_errors_place_in_the_gradient(dtype, tolerance, inputs, kept, padding, image):
    """Kernels' gradients would be mirrored, or mixed up with those of other inputs."""
    how = geometry(padding=(padding, padding))
    x, weight, _, out = convolution((3, inputs, image, image, kept + 5), how, dtype, kept)
    channel_K = torch.randperm(len(weight))[:kept].sort().values
    error = torch.randn_like(out)[:, channel_K].contiguous(memory_format=torch.channels_last)
    pays = direct_convolution.exchanged_gradient_pays(error, x, weight, how)
    assert pays == (padding == 1)  # else error and input differ in size
    expected = torch.zeros_like(weight)
    expected[channel_K] = torch.nn.grad.conv2d_weight(x, weight[channel_K].shape, error, 1, how.padding)
    assert_close(weight_gradient(error, x, weight, channel_K, how), expected, tolerance)


def test_a_kernel_of_one_number_by_hand():
    """Rows, columns or the order of channels would be mixed up in the same way in all three."""
    how = geometry(2)
    x = torch.arange(2 * 16 * 3 * 3, dtype=torch.float32).view(2, 16, 3, 3)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.zeros(2, 16, 3, 3)
    weight[1, 5, 0, 2] = 2.0  # out[b, 1, h, w] = 2 x[b, 5, 2 h - 1, 2 w + 1]
    out = direct_convolution.convolve(x, weight, None, how)
    assert (
        out.count_nonzero() == 2
        and out[0, 1, 1, 0] == 2 * x[0, 5, 1, 1]
        and out[1, 1, 1, 0] == 2 * x[1, 5, 1, 1]
    )
    error = torch.zeros(2, 1, 2, 2)
    error[1, 0, 1, 0] = 3.0
    back = direct_convolution.propagate(error, x, weight, torch.tensor([1]), how)
    assert back.count_nonzero() == 1 and back[1, 5, 1, 1] == 6.0
    gradient = direct_convolution.kernel_gradient(error, x, how)
    assert gradient[0, 5, 0, 2] == 3 * x[1, 5, 1, 1] and gradient[0, :, 2, 0].eq(0).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_they_are_operators_that_are_counted_as_pytorchs(stride):
    """MACs reported would differ from FlopCounterMode's, and a network attached to error-map pruning be refused."""
    how, channel_K = geometry(stride), torch.tensor([1, 4, 5])
    x, weight, bias, out = convolution((2, 16, 7, 7, 6), how, torch.float32, 0)
    x.requires_grad_()
    with FlopCounterMode(display=False) as judge:
        F.conv2d(x, weight[channel_K].requires_grad_(), None, how.stride, how.padding).sum().backward()
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        direct_convolution.convolve(x, weight, bias, how)
    with FlopCounterMode(display=False) as backward, torch.no_grad():
        direct_convolution.propagate(out[:, channel_K], x, weight, channel_K, how)
        direct_convolution.kernel_gradient(out[:, channel_K], x, how)
    assert forward.get_total_flops() / 6 * 3 + backward.get_total_flops() == judge.get_total_flops()


def test_fake_tensors_pass_through_as_real_ones_do():
    """Memory would be predicted of another path than the one that training takes, or C read what is not there."""
    how = geometry(2)
    x, weight, bias, out = convolution((2, 16, 7, 7, 6), how, torch.float32, 1)

    def shapes(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> list[tuple]:
        assert direct_convolution.takes(x, weight, how)
        results = (
            direct_convolution.convolve(x, weight, bias, how),
            direct_convolution.propagate(out, x, weight, torch.arange(6), how),
            direct_convolution.kernel_gradient(out, x, how),
        )
        return [(tuple(r.shape), r.stride(), r.untyped_storage().nbytes()) for r in results]

    with FakeTensorMode() as mode:
        faked = shapes(*map(mode.from_tensor, (x, weight, bias, out)))
    assert faked == shapes(x, weight, bias, out)


@pytest.mark.parametrize("instances", [1, 3, 64])
def test_any_number_of_threads_gives_the_same_bits(instances):
    """A run would not repeat itself on a host with more cores."""
    how, threads = geometry(), torch.get_num_threads()
    x, weight, bias, out = convolution((instances, 16, 9, 9, 24), how, torch.float32, 0)
    results = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            results.append(
                (
                    direct_convolution.convolve(x, weight, bias, how),
                    direct_convolution.propagate(out, x, weight, torch.arange(24), how),
                    direct_convolution.kernel_gradient(out, x, how),
                )
            )
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize(
    ("shape", "weight_shape", "how"),
    [
        ((2, 16, 8, 8), (4, 16, 5, 5), geometry(kernel=(5, 5))),
        ((2, 16, 8, 8), (4, 16, 3, 3), geometry(dilation=(2, 2))),
        ((2, 16, 8, 8), (4, 8, 3, 3), geometry(groups=2)),
        ((2, 16, 8, 8), (4, 16, 3, 3), geometry(3)),
        ((2, 16, 8, 8), (4, 16, 3, 3), geometry(padding=(3, 3))),
        ((2, 16, 8, 8), (4, 8, 3, 3), geometry()),
        ((2, 16, 2, 2), (4, 16, 3, 3), geometry(padding=(0, 0))),
        ((1, 16, 3, direct_convolution.MOST_NUMBERS // 16), (4, 16, 3, 3), geometry()),
        ((0, 16, 8, 8), (4, 16, 3, 3), geometry()),
    ],
    ids=["kernel", "dilation", "groups", "stride", "padding", "inputs", "too small", "too wide", "empty"],
)
def test_what_it_does_not_know_is_left_to_pytorch(shape, weight_shape, how):
    """C would read or write memory that is not the tensors'."""
    x = torch.zeros(shape).to(memory_format=torch.channels_last)
    assert not direct_convolution.takes(x, torch.zeros(weight_shape), how)


def test_other_numbers_and_orders_are_left_to_pytorch():
    """C would read numbers as what they are not."""
    x, weight, how = torch.zeros(2, 8, 4, 4), torch.zeros(4, 8, 3, 3), geometry()
    last = x.contiguous(memory_format=torch.channels_last)
    assert not direct_convolution.takes(x, weight, how)
    assert not direct_convolution.takes(last, weight.double(), how)
    assert direct_convolution.takes(last, weight, how)
    assert channelwise.takes(last)


def test_it_is_used_where_it_is_faster():
    """Wide layers, or maps of a few columns, would train more slowly than with PyTorch's products."""
    how = geometry()

    def pays(channels: int, columns: int) -> bool:
        x = torch.zeros(2, channels, 4, columns).to(memory_format=torch.channels_last)
        return direct_convolution.pays(x, torch.zeros(channels, channels, 3, 3), how)

    assert pays(16, 32) and pays(64, 8)
    assert not pays(128, 8) and not pays(16, 4)


@pytest.mark.parametrize(("inputs", "pays"), [(15, False), (16, True), (48, True), (64, False)])
def test_the_gradient_is_made_of_whole_vectors(inputs, pays):
    """C would read past the last pixel."""
    x = torch.zeros(2, inputs, 8, 8).to(memory_format=torch.channels_last)
    assert direct_convolution.gradient_pays(x, torch.zeros(32, inputs, 3, 3), geometry()) == pays
