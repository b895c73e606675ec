"""The training loop: plain SGD when no method is on, and counts that add up."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedge.errors import UserError
from fedge.models import build
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.instance_filter.filters import make_filter
from fedge.training.loop import evaluate, train
from fedge.training.macs import count_macs
from fedge.training.pruning.one_shot import prune
from fedge.training.quantization import Quantization
from fedge.training.stats import TrainStats


def data(count: int = 4, size: int = 8):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(size, 3, 16, 16, generator=generator), torch.randint(0, 4, (size,), generator=generator))
        for _ in range(count)
    ]


def model_and_optimizer():
    model = build("resnet8", num_classes=4, in_channels=3, image_size=16, seed=5)
    return model, torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)


@pytest.mark.parametrize("with_idle_methods", [False, True])
def test_without_methods_it_is_plain_sgd_bit_for_bit(with_idle_methods):
    """If this fails, `dense` is no yardstick: it is not what a PyTorch user would have trained."""
    ours, optimizer = model_and_optimizer()
    idle = {"error_maps": ErrorMapPruner(ours, keep=1)} if with_idle_methods else {}
    stats = train(ours, data(), optimizer=optimizer, **idle)
    plain, optimizer = model_and_optimizer()
    losses = []
    for x, y in data():
        optimizer.zero_grad()
        loss = F.cross_entropy(plain(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    for (name, mine), other in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name
    assert stats.loss == pytest.approx(sum(losses) / 4)
    assert stats.macs_done == stats.macs_dense == 32 * count_macs(plain, (3, 16, 16)).training
    assert stats.bit_operations == 1024 * stats.macs_done


@pytest.mark.parametrize("level", [0.0, 0.4])
def test_all_methods_together(level):
    """If this fails, pruning, filter, error maps and quantisation cannot share a round."""
    model, _ = model_and_optimizer()
    if level:
        prune(model, level, example_input=torch.zeros(1, 3, 16, 16))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    stats = train(
        model,
        data(6, 16),
        optimizer=optimizer,
        instance_filter=make_filter("early", 0.5, in_channels=3, image_size=16),
        error_maps=ErrorMapPruner(model, keep=0.5),
        quantization=Quantization(model),
    )
    assert 0 < stats.samples_kept < stats.samples_seen == 96
    assert 0 < stats.macs_done < stats.macs_dense
    assert stats.macs_filter > 0
    assert math.isfinite(stats.loss)
    assert "forward" not in model.stem.conv.__dict__


@pytest.mark.parametrize("pruned", [False, True])
def test_a_single_instance_on_a_one_pixel_map_trains(pruned):
    """If this fails, a client whose last mini-batch has one instance ends its round with an error."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 4), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    batches = [(torch.randn(size, 1, 4, 4), torch.zeros(size, dtype=torch.int64)) for size in (3, 1)]
    stats = train(
        model, batches, optimizer=optimizer, error_maps=ErrorMapPruner(model, 0.5) if pruned else None
    )
    assert stats.samples_kept == 4
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("method", [None, "filtered", "quantised"])
def test_a_single_instance_runs_once(method):
    """If this fails, a lone instance costs more than is counted, or moves a norm's statistics twice."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    options = {
        None: {},
        "filtered": {"instance_filter": make_filter("random", 1.0, in_channels=3, image_size=16)},
        "quantised": {"quantization": Quantization(model)},
    }[method]
    with FlopCounterMode(display=False) as judge:
        stats = train(model, data(1, size=1), optimizer=optimizer, **options)
    assert stats.macs_done == stats.macs_dense == judge.get_total_flops() / 2
    assert [model[1].num_batches_tracked.item(), model[4].num_batches_tracked.item()] == [1, 0]
    assert all(module.training and not module._forward_pre_hooks for module in model.modules())


def test_a_norm_that_is_kept_frozen_stays_so():
    """If this fails, a model that freezes its norms in `train()` learns their statistics from a lone instance."""

    class Frozen(nn.Sequential):
        def train(self, mode: bool = True):
            super().train(mode)
            self[1].eval()
            return self

    model = Frozen(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 14 * 14, 4))
    train(model, data(1, size=1), optimizer=torch.optim.SGD(model.parameters(), 0.1))
    assert model[1].num_batches_tracked == 0
    assert not model[1].training


def test_every_image_size_is_counted_by_its_own_table():
    """If this fails, larger images pass for a saving."""
    model, optimizer = model_and_optimizer()
    batches = [(torch.randn(2, 3, size, size), torch.tensor([0, 1])) for size in (8, 16, 8)]
    stats = train(model, batches, optimizer=optimizer)
    small, large = (count_macs(model, (3, size, size)).training for size in (8, 16))
    assert stats.macs_done == stats.macs_dense == 4 * small + 2 * large


def test_a_quantiser_forgets_the_pruner_of_an_earlier_call():
    """If this fails, error maps are still dropped after they were switched off, at the price of a dense backward."""
    model, optimizer = model_and_optimizer()
    method, pruner = Quantization(model), ErrorMapPruner(model, 0.25)
    pruned = train(model, data(1), optimizer=optimizer, error_maps=pruner, quantization=method)
    dense = train(model, data(1), optimizer=optimizer, quantization=method)
    assert pruned.macs_done < dense.macs_done == dense.macs_dense
    assert (model.stem.conv.weight.grad.abs().sum((1, 2, 3)) > 0).all()
    assert not method.entered


def test_a_quantiser_entered_without_the_pruner_is_refused():
    """If this fails, convolutions compute in float and are charged as 8-bit."""
    model, optimizer = model_and_optimizer()
    method, pruner = Quantization(model), ErrorMapPruner(model, 0.25)
    with method, pytest.raises(UserError, match="entered without these error maps"):
        train(model, data(1), optimizer=optimizer, error_maps=pruner, quantization=method)
    by_train = train(model, data(1), optimizer=optimizer, error_maps=pruner, quantization=method)
    with method.over(pruner):
        for options in (
            {"error_maps": pruner},
            {},
        ):  # entered by hand, it is counted as it runs in either case
            by_hand = train(model, data(1), optimizer=optimizer, quantization=method, **options)
            assert by_hand.bit_operations == by_train.bit_operations


@pytest.mark.parametrize("method", [ErrorMapPruner, Quantization])
def test_a_method_of_another_model_is_refused(method):
    """If this fails, a densely trained network reports a backward pass at no cost."""
    model, optimizer = model_and_optimizer()
    other = {ErrorMapPruner: "error_maps", Quantization: "quantization"}[method]
    with pytest.raises(UserError, match="made for another model"):
        train(model, data(1), optimizer=optimizer, **{other: method(model_and_optimizer()[0])})


def test_a_model_in_double_trains():
    """If this fails, a network that PyTorch trains ends in an error of the count."""
    model, _ = model_and_optimizer()
    model.double()
    batches = [(x.double(), y) for x, y in data(1)]
    stats = train(
        model,
        batches,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        error_maps=ErrorMapPruner(model, 0.5),
    )
    assert 0 < stats.saved < 1


def test_stats_add_up():
    """If this fails, a round of several epochs reports the cost or the loss of one."""
    a = TrainStats(
        samples_seen=4, samples_kept=2, macs_forward=10, macs_filter=1, macs_dense=40, loss_sum=6.0
    )
    b = TrainStats(samples_seen=4, samples_kept=1, macs_forward=5, macs_dense=40, loss_sum=3.0)
    both = a + b
    assert (both.samples_kept, both.macs_done, both.macs_dense, both.loss) == (3, 16, 80, 3.0)
    assert both.saved == pytest.approx(0.8)
    assert sum([a, b], TrainStats()) == both


def test_no_batches_do_nothing():
    """If this fails, a client without training data crashes or reports a loss of 0."""
    model, optimizer = model_and_optimizer()
    stats = train(model, [], optimizer=optimizer)
    assert stats == TrainStats()
    assert math.isnan(stats.loss)
    assert math.isnan(evaluate(model, []).accuracy)


def test_evaluation_counts_and_leaves_modes_alone():
    """If this fails, accuracies are wrong, or evaluating changes the training that follows."""
    model, _ = model_and_optimizer()
    model.train()
    model.stem.eval()
    x, y = data(1)[0]
    with torch.no_grad():
        logits = build("resnet8", num_classes=4, in_channels=3, image_size=16, seed=5).eval()(x)
    result = evaluate(model, [(x[:3], y[:3]), (x[3:], y[3:])])
    assert result.correct == int((logits.argmax(1) == y).sum())
    assert result.count == 8
    assert result.loss == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)
    assert model.training
    assert not model.stem.training
