"""Peak training memory, estimated against what torch's allocator handed out."""

import copy

import pytest
import torch
from torch import nn

from benchmarks.measure.allocator import allocator_peak
from fedge.device.memory.peak import peak_training_memory
from fedge.errors import UserError
from fedge.models import build
from fedge.training.pruning.one_shot import prune
from fedge.training.update.what import freeze

# With 8-channel blocks (AVX2) the estimate, made for 16, may lie above the truth.
HAS_AVX512 = "AVX512" in torch.backends.cpu.get_cpu_capability()


def network(name: str, shape: tuple[int, int, int], level: float) -> nn.Module:
    model = build(name, num_classes=10, in_channels=shape[0], image_size=shape[1:])
    if level:
        prune(model, level, example_input=torch.zeros(1, *shape))
    return model


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("level", [0.0, 0.5])
@pytest.mark.parametrize(("name", "shape"), [("lenet", (1, 28, 28)), ("resnet8", (3, 32, 32))])
def test_the_estimate_is_within_two_percent_of_the_allocator(name, shape, level, optimizer):
    """A plan would be let onto a device that it does not fit, or kept off one that it fits."""
    model = network(name, shape, level)
    estimate = peak_training_memory(lambda: model, batch_size=8, input_shape=shape, optimizer=optimizer)
    truth = allocator_peak(model, batch_size=8, input_shape=shape, optimizer=optimizer)
    assert estimate == pytest.approx(truth, rel=0.02) if HAS_AVX512 else estimate >= 0.98 * truth


def test_a_linear_layer_counted_by_hand():
    """The sum itself would be wrong, whatever the allocator of this machine does."""
    # Weights 4 x 3, bias 4; input [2, 3]; labels 2 x 8 bytes; logits, log-softmax and its gradient [2, 4] each.
    peak = peak_training_memory(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 4)), batch_size=2, input_shape=(3, 1, 1)
    )
    weights, held, logits = 4 * (12 + 4), 4 * 6 + 8 * 2, 4 * 8
    # When the linear layer has just given its gradients, these and the logits' gradient are alive.
    assert peak == pytest.approx(2 * weights + held + logits, abs=2 * logits)


def test_memory_falls_with_the_level_and_the_batch_and_rises_with_the_optimiser():
    """Shrinking a plan would not make it smaller."""
    shape = (1, 28, 28)

    def peak(level: float, batch_size: int, optimizer: str) -> int:
        model = network("lenet", shape, level)
        return peak_training_memory(
            lambda: model, batch_size=batch_size, input_shape=shape, optimizer=optimizer
        )

    assert peak(0.5, 8, "sgd") < peak(0.0, 8, "sgd") < peak(0.0, 32, "sgd")
    assert peak(0.0, 8, "sgd") < peak(0.0, 8, "momentum") < peak(0.0, 8, "adam")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("lenet", (1, 28, 28)), ("lenet", (1, 16, 16)), ("resnet8", (3, 32, 32)), ("squeezenet", (3, 32, 32))],
)
def test_error_map_pruning_is_within_two_percent_too(name, shape):
    """The estimate would be of another backward pass than the one that runs."""
    model = network(name, shape, 0.0)
    estimate = peak_training_memory(lambda: model, batch_size=8, input_shape=shape, error_maps=0.25)
    truth = allocator_peak(model, batch_size=8, input_shape=shape, error_maps=0.25)
    assert estimate == pytest.approx(truth, rel=0.02) if HAS_AVX512 else estimate >= 0.98 * truth


UNBIASED = [
    ("element", {"target": 0.9}),
    ("element", {"keep": 0.3}),
    ("pixel", {"keep": 0.3}),
    ("map", {"keep": 0.3}),
]


@pytest.mark.parametrize(("kind", "options"), UNBIASED)
def test_error_maps_drawn_at_random_are_within_two_percent_too(kind, options):
    """A plan with elements would be let onto a device that has no room for the numbers they are drawn by."""
    model, shape = network("resnet8", (3, 16, 16), 0.0), (3, 16, 16)
    method = {"batch_size": 8, "input_shape": shape, "error_maps": {"kind": kind} | options}
    estimate, truth = peak_training_memory(lambda: model, **method), allocator_peak(model, **method)
    assert estimate == pytest.approx(truth, rel=0.02) if HAS_AVX512 else estimate >= 0.98 * truth
    assert estimate > peak_training_memory(lambda: model, batch_size=8, input_shape=shape)


FROZEN = [("resnet20", what) for what in ("head", "norm", "last")]
FROZEN += [pytest.param("mobilenet_v2", what, marks=pytest.mark.slow) for what in ("head", "norm", "last")]
FROZEN += [("lenet", "head"), ("alexnet", "shift"), ("squeezenet", "shift"), ("resnet8", "norm")]


@pytest.mark.parametrize(("name", "what"), FROZEN)
def test_networks_frozen_in_parts_are_within_two_percent(name, what):
    """A head alone would be kept off a device that it fits, as if the maps in front of it were kept."""
    shape = (1, 28, 28) if name == "lenet" else (3, 32, 32)
    model = network(name, shape, 0.0)
    freeze(model, what, shape)
    method = {"batch_size": 8, "input_shape": shape, "optimizer": "adam"}
    estimate, truth = peak_training_memory(lambda: model, **method), allocator_peak(model, **method)
    assert estimate == pytest.approx(truth, rel=0.02) if HAS_AVX512 else estimate >= 0.98 * truth


def test_the_model_is_neither_changed_nor_the_generator_touched():
    """Asking what a plan needs would change the plan's outcome."""
    model, before = network("lenet", (1, 28, 28), 0.0).eval(), torch.get_rng_state()
    weights = copy.deepcopy(model.state_dict())
    peak_training_memory(lambda: model, batch_size=4, input_shape=(1, 28, 28))
    assert torch.equal(torch.get_rng_state(), before) and not model.training
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("wrong", [{"optimizer": "lion"}, {"batch_size": 0}])
def test_an_impossible_question_is_one_clear_line(wrong):
    """The user would see a KeyError."""
    with pytest.raises(UserError, match=r"there are sgd|at least 1"):
        peak_training_memory(nn.Flatten, **{"batch_size": 2, "input_shape": (1, 4, 4)} | wrong)


@pytest.mark.parametrize(("kind", "least"), [(nn.GRU, 0.98), (nn.LSTM, 0.7)])
def test_recurrence_is_estimated_with_what_it_keeps(kind, least):
    """What an LSTM keeps for its backward pass, most of its memory, would be missed."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = kind(16, 32, batch_first=True), nn.Linear(32, 3)

        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x_BCHW.flatten(1, 2))[0][:, -1])

    model = Rows()
    estimate = peak_training_memory(lambda: model, batch_size=8, input_shape=(1, 32, 16))
    truth = allocator_peak(model, batch_size=8, input_shape=(1, 32, 16), optimizer="sgd")
    assert least * truth <= estimate <= 1.02 * truth


class Recurrent(nn.Module):
    """A GRU over rows of pixels, and a norm that keeps no statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(12, 16, batch_first=True), nn.Linear(16, 3)
        self.norm = nn.BatchNorm1d(16, track_running_stats=False)
        self.kept: torch.Tensor | None = None

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        self.kept = self.rnn(x_BCHW.flatten(1, 2).mT[:, :12].mT)[0][:, -1]
        return self.head(self.norm(self.kept))


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_any_network_is_estimated(batch_size, trained):
    """A network with recurrence, a static norm or a tensor kept from its last step could not be planned for."""
    model = Recurrent()
    if trained:
        model(torch.zeros(4, 1, 12, 12)).sum().backward()
    kept = model.kept
    estimate = peak_training_memory(lambda: model, batch_size=batch_size, input_shape=(1, 12, 12))
    assert estimate > 2 * 4 * sum(parameter.numel() for parameter in model.parameters())
    assert model.kept is kept


def test_a_network_that_looks_at_its_numbers_is_estimated_too():
    """Its estimate would end in an error of a tensor without numbers."""

    class Looks(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.sum().item() >= 0 else -x)

    layers = nn.Flatten(), nn.Linear(144, 8), nn.Linear(8, 3)
    sizes = [
        peak_training_memory(lambda kind=kind: kind(*layers), batch_size=8, input_shape=(1, 12, 12))
        for kind in (Looks, nn.Sequential)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
