"""The filter that goes by the first exit: what it keeps, what it costs, and where there is no exit."""

import pytest
import torch

from fedge.errors import UserError
from fedge.models import build
from fedge.training.exits import ExitNetwork, ExitTask, with_exits
from fedge.training.exits.leaving import macs_to_leave
from fedge.training.instance_filter.base import MiniBatch
from fedge.training.instance_filter.first_exit import FirstExitFilter
from fedge.training.loop import train
from fedge.training.macs import count_macs
from fedge.training.task import Classes

SHAPE = (3, 16, 16)


@pytest.fixture
def model() -> ExitNetwork:
    """ResNet-8 for ten classes, narrow, with exits that alone are trained."""
    trunk = build("resnet8", num_classes=10, in_channels=3, image_size=16, seed=0, width=0.5)
    found = with_exits(trunk, SHAPE, 10, channels=8, seed=0)
    found.freeze_trunk()
    found.whole = False
    return found


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(10, *SHAPE, generator=generator), torch.randint(0, 10, (10,), generator=generator)


@pytest.mark.parametrize(("keep", "kept"), [(0.25, 3), (0.05, 1), (1.0, 10)])
def test_it_keeps_the_least_sure(model, batch, keep: float, kept: int) -> None:
    """Breaks if sure instances are kept, if the share is another, or if indices do not ascend."""
    model.eval()
    with torch.no_grad(), model.telling_all():
        sure_B = model(batch[0])[:, :, 0].softmax(1).amax(1)
    kept_K, weights = FirstExitFilter(keep).select(MiniBatch(*batch, model))
    assert kept_K.tolist() == sorted(sure_B.argsort()[:kept].tolist()) and weights is None


def test_how_sure_is_among_the_classes_that_are_answers(model, batch) -> None:
    """Breaks if a class that is no answer here makes an instance seem easy or hard."""
    with model.answering_among([0, 1]):
        few_K = FirstExitFilter(0.3).select(MiniBatch(*batch, model))[0]
    model.eval()
    with torch.no_grad():
        sure_B = model.at_first_exit(batch[0])[:, :2].softmax(1).amax(1)
    assert few_K.tolist() == sorted(sure_B.argsort()[:3].tolist())


def test_a_look_is_counted_and_modes_are_put_back(model, batch) -> None:
    """Breaks if looking is free, if it costs more than what runs, or if it leaves exits in evaluation mode."""
    optimizer = torch.optim.SGD(model.exits.parameters(), lr=0.01)
    stats = train(
        model,
        [batch],
        optimizer=optimizer,
        task=ExitTask(Classes(), whole=False),
        instance_filter=FirstExitFilter(0.4),
    )
    look = macs_to_leave(model, SHAPE)[0]
    assert stats.macs_filter == 10 * look
    assert stats.samples_kept == 4 and stats.macs_done == 10 * look + 4 * count_macs(model, SHAPE).training
    assert model.exits[0].training and not model.trunk.training


def test_a_network_without_exits_is_refused(batch) -> None:
    """Breaks if the filter chooses by something else in silence."""
    trunk = build("resnet8", num_classes=10, in_channels=3, image_size=16, seed=0, width=0.5)
    with pytest.raises(UserError, match="network has none"):
        FirstExitFilter(0.4).select(MiniBatch(*batch, trunk))
