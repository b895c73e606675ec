"""channelwise.c: its numbers are PyTorch's, with any number of threads; where it cannot be had, it is done without."""

import copy
import shutil
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fedge.training import channelwise, native
from fedge.training.kept_maps import norm_per_channel, spread_kernels
from fedge.training.kept_norm import block_norms, norm_backward, norm_forward

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
precisions = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-14)])
sizes = st.tuples(st.integers(1, 5), st.integers(1, 150), st.integers(1, 9), st.integers(1, 9))


@pytest.fixture
def without(monkeypatch):
    """Calls a function with PyTorch's operators."""

    def call(function, *arguments):
        with monkeypatch.context() as context:
            context.setattr(native, "library", lambda dtype: None)
            return function(*arguments)

    return call


def maps(size: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = 3 + 2 * torch.randn(size, generator=generator, dtype=dtype)
    return values.contiguous(memory_format=torch.channels_last)


def norm_of(channels: int, dtype: torch.dtype, **options) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, **options).to(dtype)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


def assert_close(ours: Tensor, expected: Tensor, tolerance: float) -> None:
    assert (ours - expected).detach().abs().max() <= tolerance * max(
        1.0, float(expected.detach().abs().max())
    )


def lost_to_the_mean(y_BCHW: Tensor) -> float:
    """By how much taking the mean off magnifies rounding: |y| / sigma of the worst channel (two close values, say)."""
    sigma_C = (y_BCHW.var((0, 2, 3), correction=0) + 1e-5).sqrt()
    return max(1.0, float((y_BCHW.abs().amax((0, 2, 3)) / sigma_C).max()))


@needs_compiler
def test_it_compiles_where_there_is_a_compiler():
    """If this fails, everybody trains with PyTorch's operators, right and slow, and nothing says so."""
    assert all(native.library(dtype) is not None for dtype in native.REAL)


@needs_compiler
@precisions
@settings(max_examples=30, deadline=None)
@given(
    size=sizes,
    affine=st.booleans(),
    tracked=st.booleans(),
    momentum=st.sampled_from([0.1, None]),
    rectified=st.booleans(),
)
def test_batch_norm_is_pytorchs(dtype, tolerance, size, affine, tracked, momentum, rectified):
    """If this fails, pruned training normalises otherwise than dense training, or spoils the running statistics."""
    if size[0] * size[2] * size[3] == 1:
        return  # PyTorch refuses one value
    norm = norm_of(size[1], dtype, affine=affine, track_running_stats=tracked, momentum=momentum)
    reference = copy.deepcopy(norm)
    for seed in range(2):
        y_BCHW = maps(size, dtype, seed)
        assert channelwise.takes_norm(y_BCHW, norm)
        out_BCHW = reference(y_BCHW).relu() if rectified else reference(y_BCHW)
        ours_BCHW = norm_forward(y_BCHW, norm, rectified)[0]
        assert_close(ours_BCHW, out_BCHW, tolerance * lost_to_the_mean(y_BCHW))
    for name, expected in reference.named_buffers():
        assert_close(norm.get_buffer(name), expected, tolerance)


@needs_compiler
@precisions
@pytest.mark.parametrize(("trained", "rectified"), [(True, True), (True, False), (False, False)])
def test_the_kept_error_is_brought_before_the_norm_as_by_pytorch(dtype, tolerance, trained, rectified):
    """If this fails, a block's kernels and norm learn from a wrong error."""
    y_BCHW, error_BCHW = maps((4, 20, 7, 6), dtype, 0), maps((4, 20, 7, 6), dtype, 1)
    norm = norm_of(20, dtype).train(trained)
    out_BCHW, state = norm_forward(y_BCHW, norm, rectified)
    assert state.compiled
    assert state.rectified == rectified
    masked_BCHW = error_BCHW * (out_BCHW > 0) if rectified else error_BCHW
    behind = y_BCHW, norm.weight.detach(), torch.arange(3, 20, 4)
    sum_3C = block_norms(error_BCHW, y_BCHW, state)[1]
    by_pytorch = norm_backward(masked_BCHW, *behind, state._replace(compiled=False), None)
    for ours, expected in zip(norm_backward(error_BCHW, *behind, state, sum_3C), by_pytorch, strict=True):
        assert_close(ours, expected, tolerance)


@needs_compiler
@precisions
@settings(max_examples=30, deadline=None)
@given(size=sizes)
def test_norms_are_sums_of_absolute_values(dtype, tolerance, size):
    """If this fails, the wrong error maps are kept."""
    error_BCHW = maps(size, dtype, 2)
    assert_close(norm_per_channel(error_BCHW), error_BCHW.abs().sum((0, 2, 3)), tolerance)


@needs_compiler
@precisions
@pytest.mark.parametrize("rectified", [True, False])
def test_norms_in_a_block_are_of_what_its_relu_lets_pass(dtype, tolerance, rectified):
    """If this fails, channels are ranked by errors that the ReLU stops, or without the norm's part."""
    error_BCHW, y_BCHW = maps((3, 24, 5, 7), dtype, 2), maps((3, 24, 5, 7), dtype, 3)
    out_BCHW, state = norm_forward(y_BCHW, norm_of(24, dtype), rectified)
    passed_BCHW = torch.where(out_BCHW > 0, error_BCHW, 0) if rectified else error_BCHW
    expected = block_norms(passed_BCHW, y_BCHW, state._replace(compiled=False))[0]
    assert_close(block_norms(error_BCHW, y_BCHW, state)[0], expected, tolerance)


@needs_compiler
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_the_best_channels_are_those_of_highest_score(data):
    """If this fails, a tie or a nan keeps too few channels, or a group loses its share."""
    groups, per_group = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 20))
    kept, channels = data.draw(st.integers(1, per_group)), groups * per_group
    values = st.one_of(st.integers(0, 3).map(float), st.just(float("nan")))
    score = torch.tensor(data.draw(st.lists(values, min_size=channels, max_size=channels)))
    channel_K = channelwise.best_channels(score, kept * groups, groups)
    assert channel_K.tolist() == sorted(set(channel_K.tolist()))
    for group, own in enumerate(score.view(groups, -1).nan_to_num(nan=9)):
        inside = channel_K[channel_K.div(per_group, rounding_mode="floor") == group] - group * per_group
        assert own[inside].sort().values.tolist() == own.sort().values[-kept:].tolist()


@needs_compiler
@pytest.mark.parametrize("mirrored", [True, False])
def test_kernels_find_their_channels_in_any_memory_order(mirrored, without):
    """If this fails, a kernel is updated with the gradient of another one, or with its own turned round."""
    gradient_IKJL = torch.randn(3, 2, 5, 3).contiguous(memory_format=torch.channels_last)
    arguments = gradient_IKJL.transpose(0, 1), torch.tensor([2, 6]), 8
    ours = spread_kernels(*arguments, mirrored=mirrored)
    assert torch.equal(ours, without(partial(spread_kernels, mirrored=mirrored), *arguments))


@needs_compiler
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_the_error_goes_back_through_kernels_turned_round(order):
    """If this fails, errors go back through the kernels of other channels, or at other places of the image."""
    weight_CIJL = torch.randn(47, 3, 5, 2).contiguous(memory_format=order)
    channel_K = torch.tensor([0, *range(2, 40, 2), 46])  # more than the C code turns at a time
    expected = weight_CIJL[channel_K].transpose(0, 1).flip(2, 3)
    assert torch.equal(channelwise.turned_kernels(weight_CIJL, channel_K), expected)


@needs_compiler
def test_the_number_of_threads_changes_no_bit():
    """If this fails, a run depends on how many cores its host was given."""
    size = (5, 24, 13, 11)
    y_BCHW, error_BCHW = maps(size, torch.float32, 0), maps(size, torch.float32, 1)

    def everything() -> list[Tensor]:
        norm = norm_of(24, torch.float32, affine=False)
        out_BCHW, state = norm_forward(y_BCHW, norm, rectified=True)
        sum_3C = block_norms(error_BCHW, y_BCHW, state)[1]
        kept = norm_backward(error_BCHW, y_BCHW, None, torch.arange(6), state, sum_3C)
        return [out_BCHW, norm.running_var, norm_per_channel(error_BCHW), sum_3C, *kept]

    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(everything())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("variables", [{"CC": "no-such-compiler"}, {"CC": "false"}, {"FEDGE_NATIVE": "0"}])
def test_it_is_done_without_where_it_cannot_be_had(monkeypatch, tmp_path, variables):
    """If this fails, a machine without a C compiler, or with a broken one, cannot train."""
    for name, value in (variables | {"FEDGE_CACHE": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    assert native.library.__wrapped__(torch.float32) is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (torch.zeros(2, 4, 3, 3), "in plain order"),
        (
            torch.zeros(2, 4, 3, 3, dtype=torch.float16).to(memory_format=torch.channels_last),
            "half precision",
        ),
        (torch.zeros(0, 4, 3, 3).to(memory_format=torch.channels_last), "empty"),
        (torch.zeros(1, channelwise.MOST_CHANNELS + 1, 1, 1), "too wide for a thread's stack"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_maps_that_it_does_not_know_are_left_to_pytorch(values, reason):
    """If this fails, C reads memory that is not the tensor's."""
    assert not channelwise.takes(values)


@needs_compiler
def test_tensors_without_numbers_go_the_same_way_and_are_not_read():
    """If this fails, C follows the address of a fake tensor and the process dies, or memory is predicted of another
    path than the one that training takes."""
    with FakeTensorMode():
        y_BCHW = torch.zeros(2, 4, 3, 3).to(memory_format=torch.channels_last)
        assert channelwise.takes(y_BCHW)
        out_BCHW, statistics_4C = channelwise.norm_forward(y_BCHW, nn.BatchNorm2d(4), rectified=True)
    assert (
        isinstance(out_BCHW, FakeTensor) and out_BCHW.shape == (2, 4, 3, 3) and statistics_4C.shape == (4, 4)
    )


def test_a_norm_of_other_numbers_is_left_to_pytorch():
    """If this fails, C reads a norm's parameters as what they are not."""
    y_BCHW = maps((2, 4, 3, 3), torch.float32, 0)
    strided, double = nn.BatchNorm2d(4), nn.BatchNorm2d(4).double()
    strided.weight = nn.Parameter(torch.ones(8)[::2])
    assert not channelwise.takes_norm(y_BCHW, strided)
    assert not channelwise.takes_norm(y_BCHW, double)
