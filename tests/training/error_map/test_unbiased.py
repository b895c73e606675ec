"""The kinds of error-map pruning that draw at random: no bias, the density asked for, counted by what stays."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.models import build
from fedge.training.error_map import ErrorMapPruner
from fedge.training.error_map.element import prune_elements
from fedge.training.error_map.gathered import gathered_gradients
from fedge.training.error_map.geometry import geometry
from fedge.training.error_map.sampled import Sampler
from fedge.training.error_map.threshold import (
    Predicted,
    density_of_normal,
    lognormal,
    lognormal_zeros,
    normal,
    sampled,
)
from fedge.training.error_map.units import draw, kept_units, probabilities
from fedge.training.loop import train
from fedge.training.macs import count_macs
from fedge.training.quantization import Quantization

KINDS = {
    "element": {"kind": "element", "keep": 0.4},
    "target": {"kind": "element", "target": 0.9},
    "lognormal": {"kind": "element", "keep": 0.4, "threshold": "lognormal"},
    "pixel": {"kind": "pixel", "keep": 0.4},
    "map": {"kind": "map", "keep": 0.4},
}
PRUNINGS = 10_000


def sampler(of: str, seed: int = 0) -> tuple[Sampler, float]:
    """As the pruner makes it, and the share that it is called with."""
    options = KINDS[of]
    how = "normal" if "target" in options else str(options.get("threshold", "sampled"))
    share = 1 - options["target"] if "target" in options else options["keep"]
    return Sampler(str(options["kind"]), how, torch.Generator().manual_seed(seed)), float(share)


def error_of(*shape: int, seed: int = 0) -> Tensor:
    """Heavy tails, as gradients have them, and nothing so small that it is hardly ever kept."""
    generator = torch.Generator().manual_seed(seed)
    error = torch.randn(shape, generator=generator).double()
    return (error * (error.abs() + 0.1)).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("of", KINDS)
def test_the_mean_of_ten_thousand_prunings_is_the_gradient(of: str) -> None:
    """If this fails, training follows another gradient than the loss's, in the mean."""
    (prune, share), error = sampler(of), error_of(1, 3, 3, 4)
    many_TCHW = error.repeat(PRUNINGS, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    off_TCHW = prune("", share, many_TCHW).error_BCHW - many_TCHW
    standard_error = off_TCHW.std(0) / math.sqrt(PRUNINGS)
    assert standard_error.max() > 0
    assert (off_TCHW.mean(0).abs() <= 4 * standard_error + 1e-12).all()


@pytest.mark.parametrize("of", ["element", "pixel", "map"])
def test_a_network_of_two_layers_gets_unbiased_gradients(of: str) -> None:
    """If this fails, a norm, a padding or the way between two pruned layers brings a bias in."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3, stride=2)
    ).double()
    x, target = torch.randn(2, 1, 5, 5).double(), torch.randn(2, 2, 2, 2).double()

    def gradient() -> Tensor:
        model.zero_grad()
        (model(x) * target).sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    exact, turns = gradient(), 250
    with ErrorMapPruner(model, **KINDS[of]):
        many = torch.stack([gradient() for _ in range(turns)])
    standard_error = many.std(0) / math.sqrt(turns)
    assert standard_error.max() > 0
    assert ((many.mean(0) - exact).abs() <= 4 * standard_error + 1e-12).all()


@pytest.mark.parametrize("dense", [{"keep": 1}, {"target": 0}])
@pytest.mark.parametrize("kind", ["element", "pixel", "map"])
def test_what_keeps_all_is_pytorchs_own_training_bit_for_bit(kind: str, dense: dict[str, float]) -> None:
    """If this fails, turning the method off does not turn it off."""
    if kind != "element" and "target" in dense:
        pytest.skip("target is of elements")
    batches = [(torch.randn(6, 3, 8, 8), torch.randint(0, 10, (6,)))] * 2

    def trained(**options: object) -> list[Tensor]:
        model = build("resnet8", num_classes=10, in_channels=3, image_size=8, seed=3)
        error_maps = ErrorMapPruner(model, **options) if options else None
        train(model, batches, optimizer=torch.optim.SGD(model.parameters(), 0.1), error_maps=error_maps)
        return list(model.state_dict().values())

    assert all(map(torch.equal, trained(), trained(kind=kind, **dense)))


@pytest.mark.parametrize("of", KINDS)
def test_the_same_seed_draws_the_same(of: str) -> None:
    """If this fails, a resumed run, or another engine, trains on another gradient."""
    error = error_of(16, 12, 7, 7)
    (one, share), (two, _), (other, _) = sampler(of), sampler(of), sampler(of, seed=1)
    drawn = [[each("layer", share, error).error_BCHW for _ in range(2)] for each in (one, two, other)]
    assert all(map(torch.equal, drawn[0], drawn[1]))
    assert not torch.equal(drawn[0][0], drawn[2][0]) and not torch.equal(*drawn[0])


@pytest.mark.parametrize(
    ("target", "density"),
    [(0.5, 0.741), (0.7, 0.620), (0.8, 0.549), (0.9, 0.460), (0.95, 0.397), (0.99, 0.309), (0.999, 0.242)],
)
def test_what_stays_of_a_normal_gradient_at_a_target(target: float, density: float) -> None:
    """If this fails, tau is not the paper's, or p is told to users as what it is not: a share of zeros."""
    assert density_of_normal(target) == pytest.approx(density, abs=6e-4)
    error = torch.randn(200_000, generator=torch.Generator().manual_seed(1))
    tau = normal(error.abs(), target)
    assert float((error.abs() < tau).float().mean()) == pytest.approx(target, abs=0.004)
    pruned, left = prune_elements(error, error.abs(), tau, torch.Generator().manual_seed(2))
    assert int(left) == torch.count_nonzero(pruned)
    assert float((pruned != 0).float().mean()) == pytest.approx(density, abs=0.005)
    small = error.abs() < tau
    torch.testing.assert_close(pruned[~small], error[~small])
    raised = pruned[small & (pruned != 0)]
    torch.testing.assert_close(raised.abs(), torch.full_like(raised, tau))
    assert (raised.sign() == error[small & (pruned != 0)].sign()).all()


@settings(max_examples=25, deadline=None)
@given(keep=st.floats(0.02, 0.98), spread=st.floats(0.2, 3), zeros=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_thresholds_leave_the_share_that_is_asked_for(
    keep: float, spread: float, zeros: float, seed: int
) -> None:
    """If this fails, `keep` of elements does not say how many are left to multiply."""
    generator = torch.Generator().manual_seed(seed)
    magnitude = torch.exp(spread * torch.randn(12_000, generator=generator))
    magnitude *= torch.rand(12_000, generator=generator) >= zeros
    there = float((magnitude > 0).float().mean())
    for solve in (sampled, lognormal):
        tau = solve(magnitude, keep)
        stays = float((magnitude / tau).clamp(max=1).mean()) if tau else there
        assert stays == pytest.approx(min(keep, there), abs=0.03)


def test_the_share_of_zeros_of_a_lognormal_by_hand() -> None:
    """If this fails, the closed form of the lognormal variant is wrong."""
    mu, s, tau = 0.3, 0.8, 2.0
    magnitude = torch.exp(mu + s * torch.randn(400_000, generator=torch.Generator().manual_seed(0)).double())
    zeros = float((1 - magnitude / tau).clamp(min=0).mean())
    assert lognormal_zeros(math.log(tau), mu, s) == pytest.approx(zeros, abs=0.002)


def test_a_threshold_is_the_mean_of_the_last_five() -> None:
    """If this fails, a device would need a second pass through its gradients, or follow old ones."""
    predicted, sizes = Predicted("normal"), [1.0, 2, 3, 4, 5, 6, 7]
    taus = [predicted("layer", torch.full((4,), float(size)), 0.9) for size in sizes]
    first = normal(torch.ones(4), 0.9)
    assert taus == pytest.approx([first * mean for mean in (1, 1, 1.5, 2, 2.5, 3, 4)])
    assert predicted("another", torch.full((4,), 10.0), 0.9) == pytest.approx(10 * first)


@settings(max_examples=30, deadline=None)
@given(
    units=st.integers(1, 200),
    share=st.floats(0.01, 0.99),
    zeros=st.floats(0, 1),
    tail=st.floats(0.1, 3),
    seed=st.integers(0, 999),
)
def test_as_many_units_are_drawn_as_asked_for(
    units: int, share: float, zeros: float, tail: float, seed: int
) -> None:
    """If this fails, the memory and the arithmetic of a step are not what was planned."""
    generator = torch.Generator().manual_seed(seed)
    norm_N = torch.exp(tail * torch.randn(units, generator=generator))
    norm_N *= torch.rand(units, generator=generator) >= zeros
    kept, there = kept_units(units, share), int((norm_N > 0).sum())
    share_N = probabilities(norm_N, kept)
    drawn = draw(norm_N, kept, torch.randperm(units, generator=generator), generator)
    assert float(share_N.max()) <= 1 and float(share_N.sum()) <= min(kept, there) + 1e-6
    assert (share_N[norm_N == 0] == 0).all()
    assert len(drawn.unit_K.unique()) == len(drawn.unit_K) <= kept
    assert len(drawn.unit_K) >= min(kept, there) * 0.9 - 1
    assert (norm_N[drawn.unit_K] > 0).all()
    torch.testing.assert_close(drawn.weight_K, 1 / share_N[drawn.unit_K].float())


@pytest.mark.parametrize("of", KINDS)
def test_counted_is_what_stays_times_the_kernel(of: str) -> None:
    """If this fails, a saving is reported that is p's, or nobody's, and not that of the numbers left."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, bias=False))
    seen = []
    with ErrorMapPruner(model, **KINDS[of]) as pruner:
        sampled_by = pruner._sampler
        assert sampled_by is not None
        inner = sampled_by._prune
        sampled_by._prune = lambda *given: seen.append(inner(*given)) or seen[-1]
        x = torch.randn(5, 2, 9, 9, requires_grad=True)
        (model(x) * torch.randn(5, 4, 4, 4)).sum().backward()
    left = int(torch.count_nonzero(seen[0].error_BCHW))
    assert 0 < left < 5 * 4 * 4 * 4
    assert pruner.cost[:2] == (left * 2 * 9, left * 2 * 9)
    assert pruner.density == {"0": left / (5 * 4 * 16)}


def test_the_step_says_what_was_saved_and_the_first_layers_propagate_nothing() -> None:
    """If this fails, `saved` of a training with elements is not that of its own non-zeros."""
    model = build("lenet", num_classes=10, in_channels=1, image_size=28, seed=0)
    batches = [(torch.randn(8, 1, 28, 28), torch.arange(8))]
    sgd = torch.optim.SGD(model.parameters(), 0.01)
    with ErrorMapPruner(model, kind="element", keep=0.3) as pruner:
        stats = train(model, batches, optimizer=sgd, error_maps=pruner)
    table = {layer.name: layer.forward for layer in count_macs(model, (1, 28, 28)).layers}
    per_number = {
        name: layer.weight[0].numel() for name, layer in model.named_modules() if name[:4] == "conv"
    }
    numbers = {name: 8 * table[name] // each for name, each in per_number.items()}
    left = {name: round(pruner.density[name] * numbers[name]) for name in numbers}
    linear = sum(8 * layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
    assert stats.macs_weight_gradient == linear + sum(left[name] * per_number[name] for name in left)
    assert stats.macs_error_propagation == linear + left["conv2"] * per_number["conv2"]
    assert stats.selection_adds == 2 * sum(numbers.values())


@pytest.mark.parametrize("of", KINDS)
def test_rounding_comes_after_and_leaves_zeros_zero(of: str) -> None:
    """If this fails, quantised training multiplies what was counted as dropped."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False))
    x = torch.ones(1, 1, 6, 6, requires_grad=True)
    pruner = ErrorMapPruner(model, **KINDS[of])
    with Quantization(model, seed=0).over(pruner):
        (model(x) * (2 + torch.rand(1, 2, 6, 6))).sum().backward()
    assert x.grad is not None
    touched = (x.grad != 0).sum()
    assert touched <= round(pruner.density["0"] * 72)


@pytest.mark.parametrize("of", KINDS)
def test_they_train_a_filtered_quantised_network(of: str) -> None:
    """If this fails, the methods do not compose."""
    from fedge.training.instance_filter.filters import make_filter

    model = build("resnet8", num_classes=10, in_channels=3, image_size=16, seed=0)
    sgd, batches = torch.optim.SGD(model.parameters(), 0.01), [(torch.randn(8, 3, 16, 16), torch.arange(8))]
    stats = train(
        model,
        batches * 2,
        optimizer=sgd,
        instance_filter=make_filter("random", 0.5, in_channels=3, image_size=16, seed=0),
        error_maps=ErrorMapPruner(model, **KINDS[of]),
        quantization=Quantization(model),
    )
    assert math.isfinite(stats.loss) and stats.saved > 0.5


@st.composite
def convolutions(draw_from: st.DrawFn) -> nn.Conv2d:
    sizes, one_or_two = st.tuples(st.integers(1, 3), st.integers(1, 3)), st.integers(1, 2)
    return nn.Conv2d(
        draw_from(st.integers(1, 4)),
        draw_from(st.integers(1, 4)),
        draw_from(sizes),
        stride=draw_from(one_or_two),
        padding=draw_from(st.integers(0, 2)),
        dilation=draw_from(st.tuples(one_or_two, one_or_two)),
    ).double()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(convolution=convolutions(), keep=st.sampled_from([0.02, 0.3, 0.9]), batch=st.integers(1, 3))
def test_gathered_pixels_give_the_gradients_of_pixels_in_place(
    monkeypatch: pytest.MonkeyPatch, convolution: nn.Conv2d, keep: float, batch: int
) -> None:
    """If this fails, wide layers train on other gradients than narrow ones, in some shape of convolution."""
    x = torch.randn(batch, convolution.in_channels, 7, 8).double().requires_grad_()
    x_BIHW = x.detach().contiguous(memory_format=torch.channels_last)
    error = torch.randn_like(convolution(x)).contiguous(memory_format=torch.channels_last)
    prune = Sampler("pixel", "sampled", torch.Generator().manual_seed(0))
    in_place = prune("", keep, error).error_BCHW
    again = Sampler("pixel", "sampled", torch.Generator().manual_seed(0))("", keep, error, gather=True)
    convolution(x).backward(in_place)
    how = convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation, 1
    assert again.pixels is not None
    monkeypatch.setattr("fedge.training.error_map.gathered.CACHED_NUMBERS", 1)  # instance by instance
    grad_x, grad_weight = gathered_gradients(
        again.error_BCHW, again.pixels, x_BIHW, convolution.weight.detach(),
        geometry(*how, convolution.out_channels), (True, True),
    )  # fmt: skip
    torch.testing.assert_close(grad_x, x.grad, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(grad_weight, convolution.weight.grad, rtol=1e-9, atol=1e-9)


def test_a_wide_layer_is_gathered_and_counts_the_same() -> None:
    """If this fails, the layers in which dropping pixels saves time do not save it."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1)), torch.randn(2, 256, 4, 4, requires_grad=True)
    costs = []
    for quantised in (False, True):  # which multiplies all of the error in place
        pruner = ErrorMapPruner(model, kind="pixel", keep=0.5)
        with Quantization(model).over(pruner) if quantised else pruner:
            model(x).square().sum().backward()
        costs.append(pruner.cost)
    assert costs[0] == costs[1] == (16 * 256 * 256 * 9, 16 * 256 * 256 * 9, 2 * 16 * 257)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stays_so(bad: float) -> None:
    """If this fails, a training that has diverged goes on as if nothing had happened."""
    error = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    error[0, 0, 0, 0] = bad
    for of in KINDS:
        prune, share = sampler(of)
        assert not prune("layer", share, error).error_BCHW.isfinite().all(), of


def test_an_error_of_zeros_stays_zero() -> None:
    """If this fails, a layer behind dead units divides by zero."""
    error = torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    for of in KINDS:
        prune, share = sampler(of)
        pruned = prune("layer", share, error)
        assert not pruned.error_BCHW.any() and pruned.numbers == 0, of


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "neuron"},
        {"kind": "pixel", "score": "paper"},
        {"kind": "element", "score": lambda weight, error, generator: error},
        {"kind": "pixel", "target": 0.5},
        {"threshold": "lognormal"},
        {"kind": "element", "threshold": "normal"},
        {"kind": "element", "keep": 0.5, "target": 0.9},
        {"kind": "element", "target": 0.9, "threshold": "lognormal"},
        {"kind": "element", "target": 1},
        {"kind": "element", "target": -0.1},
        {"kind": "map", "keep": 0},
    ],
)
def test_options_that_say_nothing_together_are_refused_in_one_line(options: dict[str, object]) -> None:
    """If this fails, a setting is silently ignored."""
    with pytest.raises(UserError) as error:
        ErrorMapPruner(nn.Sequential(nn.Conv2d(1, 4, 3)), **options)
    assert "\n" not in str(error.value)


def test_a_weighty_pixel_is_kept_for_certain() -> None:
    """If this fails, q is not min(1, c norm), and the largest gradients are left to chance."""
    norm_N = torch.tensor([100.0, 1, 1, 1, 1])
    torch.testing.assert_close(probabilities(norm_N, 2), torch.tensor([1, 0.25, 0.25, 0.25, 0.25]).double())
    order_N = torch.tensor([3, 0, 4, 1, 2])
    many = [draw(norm_N, 2, order_N, torch.Generator().manual_seed(seed)).unit_K for seed in range(20)]
    assert all(len(unit_K) == 2 and 0 in unit_K for unit_K in many)
    assert len({unit_K.tolist()[1] for unit_K in many}) == 4
