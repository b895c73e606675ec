"""Each criterion measures what its source says it measures."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedge.errors import UserError
from fedge.training.pruning.criteria import CRITERIA, Evidence
from fedge.training.pruning.one_shot import prune
from fedge.training.pruning.units import PINNED, find_coupling
from tests.training.networks import (
    INPUT_SHAPE,
    BiasNoNorm,
    Repeated,
    Separable,
    ThreeBranches,
    Tokens,
    shaken,
)


def evidence_of(model: nn.Module, batches=None, input_shape=INPUT_SHAPE) -> Evidence:
    spare = copy.deepcopy(model).requires_grad_(True).eval()
    coupling = find_coupling(spare, torch.zeros(1, *input_shape, dtype=next(model.parameters()).dtype))
    return Evidence(spare, coupling, batches, torch.Generator().manual_seed(0))


def batches_for(model: nn.Module, count: int = 6) -> list:
    generator = torch.Generator().manual_seed(2)
    x_BCHW = torch.randn(count, *INPUT_SHAPE, generator=generator).to(next(model.parameters()))
    return [(x_BCHW, torch.randint(0, 5, (count,), generator=generator))]


def test_l1_is_the_mean_absolute_weight_and_the_least_of_a_sum():
    """ADaPT divides by the filter's size, so that layers compare, and a residual sum is as weak as its weakest."""
    model = ThreeBranches()
    evidence = evidence_of(model)
    score_U = CRITERIA["l1"](evidence)
    by_hand = torch.stack([conv.weight.abs().mean((1, 2, 3)) for conv in (model.stem, *model.branches)]).amin(
        0
    )
    assert torch.allclose(score_U[evidence.coupling.unit_of_output["stem"]], by_hand)


def test_taylor_is_the_squared_slope_of_the_loss_along_the_cut():
    """First order: scale all a unit's readers by (1 - t); the slope of the loss at t = 0, squared, per sample."""
    model = shaken(ThreeBranches().double())
    (x_BCHW, y_B), *_ = batches = batches_for(model)
    evidence = evidence_of(model, batches)
    score_U = CRITERIA["taylor"](evidence)
    for unit in range(evidence.coupling.units):
        step = 1e-6
        whole_U = torch.ones(evidence.coupling.units, dtype=torch.float64)
        fading_U = whole_U.clone()
        fading_U[unit] -= step
        losses = [
            functional.cross_entropy(_scaled(evidence, scale)(x_BCHW), y_B, reduction="none")
            for scale in (fading_U, whole_U)
        ]
        slope_B = (losses[1] - losses[0]) / step
        assert float(score_U[unit]) == pytest.approx(float(slope_B.square().mean().detach()), rel=1e-3)


def _scaled(evidence: Evidence, scale_U: torch.Tensor) -> nn.Module:
    """The network whose readers of unit u weigh it by scale_U[u]."""
    model = copy.deepcopy(evidence.model)
    with torch.no_grad():
        for name, layer in evidence.coupling.consumers(model).items():
            unit_C = evidence.coupling.unit_of_input[name]
            scale_C = torch.where(
                unit_C >= 0, scale_U[unit_C.clamp_min(0)], torch.ones((), dtype=torch.float64)
            )
            layer.weight *= scale_C.view(1, -1, *[1] * (layer.weight.dim() - 2))
    return model


def test_taylor_finds_the_channel_that_does_nothing():
    """A channel that no class depends on must be first to go, however large its weights: l1 cannot see that."""
    model = shaken(Separable())
    model.head.weight.data[:, 4] = 0
    model.layers[6].weight.data[4] = 100
    batches = batches_for(model)
    evidence = evidence_of(model, batches)
    useless = evidence.coupling.unit_of_input["head"][4]
    assert CRITERIA["taylor"](evidence)[useless] == 0
    assert CRITERIA["l1"](evidence).argmax() == useless


def test_activation_is_the_mean_of_what_is_read():
    """By hand, for the last layer: mean |x| per channel over its norm."""
    model = shaken(Separable()).eval()
    batches = batches_for(model)
    evidence = evidence_of(model, batches)
    score_U = CRITERIA["activation"](evidence)
    mean_C = model.layers(batches[0][0]).mean((2, 3)).abs().mean(0)
    by_hand = mean_C / mean_C.norm()
    assert torch.allclose(score_U[evidence.coupling.unit_of_input["head"]], by_hand, atol=1e-5)


def test_random_is_a_function_of_the_seed():
    """Two hosts must cut the same channels."""
    topologies, kept = [], []
    for seed in (1, 1, 2):
        model = ThreeBranches()
        model.load_state_dict(ThreeBranches_state)
        topologies.append(
            prune(model, 0.4, example_input=torch.zeros(1, *INPUT_SHAPE), criterion="random", seed=seed)
        )
        kept.append(model.stem.weight.sum().item())
    assert topologies[0] == topologies[1]
    assert kept[0] == kept[1] != kept[2]


ThreeBranches_state = ThreeBranches().state_dict()


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
@pytest.mark.parametrize("batches", [None, []])
def test_data_criteria_ask_for_data(criterion, batches):
    """Ranking by data without data, or by a shard that gave no batch, would rank by nothing."""
    with pytest.raises(UserError, match="pass batches="):
        CRITERIA[criterion](evidence_of(ThreeBranches(), batches))


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
def test_batching_does_not_matter(criterion):
    """Scores are means over samples: a device with small batches must rank as one with large ones."""
    model = shaken(Separable().double())
    (x_BCHW, y_B), *_ = batches_for(model)
    whole = CRITERIA[criterion](evidence_of(model, [(x_BCHW, y_B)]))
    parts = CRITERIA[criterion](evidence_of(model, [(x_BCHW[:1], y_B[:1]), (x_BCHW[1:], y_B[1:])]))
    assert torch.allclose(whole, parts, rtol=1e-4)


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
def test_ranking_takes_less_memory_than_training(criterion):
    """A device that can just train its network must be able to rank its channels: what autograd keeps is counted."""
    model = shaken(Separable())
    (x_BCHW, y_B), *_ = batches = batches_for(model, count=32)
    evidence = evidence_of(model, batches)
    with _kept_at_most() as by_ranking:
        CRITERIA[criterion](evidence)
    with _kept_at_most() as by_training:
        functional.cross_entropy(model(x_BCHW), y_B).backward()
    assert max(by_ranking, default=0) < max(by_training)


@contextmanager
def _kept_at_most() -> Iterator[list[int]]:
    """Bytes of the tensors that autograd keeps, after each one that it takes in."""
    alive: dict[int, tuple[int, int]] = {}
    history: list[int] = []

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor
            storage = tensor.untyped_storage()
            self.key = storage.data_ptr()
            size, holders = alive.get(self.key, (storage.nbytes(), 0))
            alive[self.key] = size, holders + 1
            history.append(sum(size for size, _ in alive.values()))

        def __del__(self) -> None:
            size, holders = alive.pop(self.key)
            if holders > 1:
                alive[self.key] = size, holders - 1

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        yield history


def test_a_function_can_be_the_criterion():
    """docs/guide/own_client.md's example, as it stands there: the scale of the norms."""

    def norm_scale(evidence: Evidence) -> torch.Tensor:
        score_U = torch.full((evidence.coupling.units,), torch.inf)  # without a norm: never cut
        for name, layer in evidence.model.named_modules():
            if isinstance(layer, nn.BatchNorm2d):
                unit_C = evidence.coupling.unit_of_output[name]
                cut_C = unit_C != PINNED  # channels that are never cut have no unit
                score_U.scatter_reduce_(0, unit_C[cut_C], layer.weight.detach()[cut_C].abs(), "amin")
        return score_U

    model = Separable()
    model.layers[1].weight.data = torch.tensor([1, 9, 9, 1, 9, 9, 9, 9.0])
    model.layers[4].weight.data.fill_(100)
    model.layers[7].weight.data.fill_(100)
    expected = model.layers[0].weight.data[[1, 2, 4, 5, 6, 7]].clone()
    prune(model, 0.2, example_input=torch.zeros(1, *INPUT_SHAPE), criterion=norm_scale)
    assert torch.equal(model.layers[0].weight, expected)


def test_taylor_counts_every_run_of_a_layer():
    """A layer that runs twice reads its unit twice; the second gate used to replace the first, off by half."""
    model = Repeated().double()
    (x_BCHW, y_B), *_ = batches = batches_for(model)
    evidence = evidence_of(model, batches)
    gate_BC11 = torch.ones(len(y_B), 8, 1, 1, dtype=torch.float64, requires_grad=True)
    x = torch.relu(model.stem(x_BCHW)) * gate_BC11
    x = torch.relu(model.twice(x)) * gate_BC11
    x = torch.relu(model.twice(x)) * gate_BC11
    loss = functional.cross_entropy(model.head(x.mean((2, 3))), y_B, reduction="sum")
    (slope_BC11,) = torch.autograd.grad(loss, gate_BC11)
    by_hand_C = slope_BC11.flatten(1).square().mean(0).float()
    assert torch.allclose(CRITERIA["taylor"](evidence)[evidence.coupling.unit_of_output["stem"]], by_hand_C)


def test_a_linear_layers_channels_are_its_last_axis():
    """By hand on [B, T, F]: mean over samples and positions T, norm over features F."""
    model = Tokens()
    x_BTF = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    spare = copy.deepcopy(model)
    coupling = find_coupling(spare, x_BTF)
    score_U = CRITERIA["activation"](Evidence(spare, coupling, [(x_BTF, torch.zeros(3))], torch.Generator()))
    mean_F = torch.relu(model.first(x_BTF)).mean((0, 1)).detach()
    assert torch.allclose(score_U[coupling.unit_of_input["second"]], mean_F / mean_F.norm())


def test_activation_behind_a_flatten_averages_positions():
    """By hand, 7 channels of 4 x 4: a norm over all 112 inputs would rank each far below those before a convolution."""
    model = BiasNoNorm()
    (x_BCHW, _), *_ = batches = batches_for(model)
    evidence = evidence_of(model, batches)
    mean_C = nn.Sequential(*model)[:5](x_BCHW).mean((0, 2, 3)).detach()
    score_U = CRITERIA["activation"](evidence)
    assert torch.allclose(score_U[evidence.coupling.unit_of_output["3"]], mean_C / mean_C.norm())
