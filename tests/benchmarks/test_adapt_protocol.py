"""ADaPT's protocol: the split, the schedule, the arms."""

from dataclasses import replace

import pytest
import torch

from benchmarks.adapt.protocol import (
    RECIPES,
    Adapt,
    Budget,
    Pictures,
    Recipe,
    Split,
    retraining_rates,
)
from fedge.errors import UserError
from fedge.models import build
from tests.training.networks import parameters


def test_split_takes_the_first_four_fifths_of_each_class_in_file_order():
    """Deterministic and per class: a shuffled split would leak validation pictures between runs."""
    y_N = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 2, 2, 2, 2, 2, 0, 2, 1])
    split = Split.of_classes(y_N, train_count=15, classes=frozenset({0, 2}))
    assert split.train.tolist() == [0, 2, 4, 6, 10, 11, 12, 13]
    assert split.validation.tolist() == [8, 14]
    assert split.test.tolist() == [15, 16]


def test_whole_split_has_all_classes():
    """The agnostic arm trains on all of D."""
    y_N = torch.arange(5).repeat(12)
    split = Split.of_classes(y_N, train_count=50)
    assert (len(split.train), len(split.validation), len(split.test)) == (40, 10, 10)


def test_rates_are_the_papers():
    """ResNet-20: 1e-2 for epochs 5-14, 1e-3 for 15-24, 1e-4 for 25-29; agnostic 10 epochs each."""
    aware = retraining_rates(RECIPES["resnet20"], Budget().retrain, before=Budget().finetune)
    agnostic = retraining_rates(RECIPES["resnet20"], Budget().agnostic)
    assert aware == pytest.approx([1e-2] * 10 + [1e-3] * 10 + [1e-4] * 5)
    assert agnostic == pytest.approx([1e-2] * 10 + [1e-3] * 10 + [1e-4] * 10)
    assert retraining_rates(RECIPES["squeezenet"], 25, before=5)[20] == pytest.approx(8e-4)


def small_experiment(seed: int = 0) -> Adapt:
    """Ten pictures each of six classes of noise around a class mean, and a small network."""
    generator = torch.Generator().manual_seed(0)
    y_N = torch.arange(6).repeat(20)
    x_NCHW = (40 * y_N.view(-1, 1, 1, 1) + torch.randint(0, 30, (120, 3, 12, 12), generator=generator)).byte()
    return Adapt(
        base=build("resnet8", num_classes=6, in_channels=3, image_size=12),
        pictures=Pictures(x_NCHW, y_N),
        whole=Split.of_classes(y_N, 90),
        subset=Split.of_classes(y_N, 90, frozenset({1, 4})),
        recipe=Recipe(1e-4, 0.1, 1e-2, 1e-1),
        budget=Budget(1, 2, 2),
        seed=seed,
        evidence=16,
    )


def test_arms_run_and_leave_the_base_alone():
    """All arms start from the same M_D; one that changed it would poison the next."""
    experiment = small_experiment()
    before = {name: tensor.clone() for name, tensor in experiment.base.state_dict().items()}
    tuned = experiment.fine_tune()
    outcomes = [
        experiment.aware(tuned, 0.5, "taylor"),
        experiment.selection(tuned, 0.5, "taylor"),
        experiment.agnostic(0.5, "taylor"),
    ]
    dense = parameters(experiment.base)
    for outcome in outcomes:
        assert outcome.topology.parameters == pytest.approx(dense / 2, rel=0.02)
        assert 0 <= experiment.top1(outcome.model) <= 1
        assert outcome.epoch in (0, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in experiment.base.state_dict().items())


def test_selection_arm_cuts_where_the_base_would_be_cut():
    """With l1 the channels are those that M_D's own weights rank lowest, not the fine-tuned network's."""
    experiment = small_experiment()
    tuned = experiment.fine_tune()
    with torch.no_grad():  # a fine-tuning that turns the ranking of the first layer around
        tuned.stage1[0].body[0].conv.weight.mul_(torch.linspace(100, 0.01, 16).view(-1, 1, 1, 1))
    aware = experiment.aware(tuned, 0.5, "l1").topology
    chosen_on_base = experiment.selection(tuned, 0.5, "l1").topology
    agnostic = experiment.agnostic(0.5, "l1").topology
    assert chosen_on_base == agnostic
    assert aware != agnostic


def test_a_cell_is_a_function_of_its_seed():
    """A resumed benchmark must give the same cells."""
    runs = []
    for seed in (3, 3, 4):
        experiment = small_experiment(seed)
        outcome = experiment.aware(experiment.fine_tune(), 0.5, "l1")
        runs.append(outcome.model.head.classifier.weight)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("split", ["whole", "subset"])
def test_empty_part_is_refused_before_training(split, part):
    """Without validation no epoch is the best one: it ended in missing keys, after all the training was done."""
    experiment = small_experiment()
    empty = replace(getattr(experiment, split), **{part: torch.tensor([], dtype=torch.int64)})
    with pytest.raises(UserError, match=f"split '{split}' has"):
        replace(experiment, **{split: empty})


@pytest.mark.parametrize("epochs", [(1, 0, 2), (1, 2, 0), (-1, 2, 2)])
def test_budget_without_retraining_is_refused(epochs):
    """The score is of an epoch after pruning: with none there is no network to return."""
    with pytest.raises(UserError, match="at least 1"):
        Budget(*epochs)
