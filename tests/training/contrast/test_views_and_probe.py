"""Views keep what they must; the probe trains a head and nothing else; the projection leaves no trace."""

import pytest
import torch
from torch import Tensor

from fedge.errors import UserError
from fedge.models import build
from fedge.training.contrast import fit_head, in_place_of_head, made_projection
from fedge.training.contrast.probe import features_of, few_of_each
from fedge.training.contrast.projection import linear_head
from fedge.training.contrast.views import jittered, picture_view, views_for, window_view
from fedge.training.macs import evaluating


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (9, 1, 128), (3, 1, 2)])
def test_views_are_of_the_same_shape_by_the_generator_alone(shape: tuple[int, int, int]) -> None:
    """Chance from anywhere else would make two runs of one scenario differ."""
    x_BCHW = torch.rand(6, *shape, generator=chance())
    view = views_for(shape)
    assert view is (window_view if shape[1] == 1 else picture_view)
    first, again, other = (view(x_BCHW, chance(seed)) for seed in (1, 1, 2))
    assert first.shape == x_BCHW.shape and torch.equal(first, again) and not torch.equal(first, other)
    if shape[1] > 1:
        assert float(first.min()) >= 0 and float(first.max()) <= 1


def test_pictures_are_cropped_mirrored_and_turned_grey() -> None:
    """Without one of them the network finds views alike by what it was to forget: place, side, colour."""
    x_BCHW = torch.rand(300, 3, 8, 8, generator=chance())
    ramp_W = torch.linspace(0, 1, 8)
    x_BCHW[:] = ramp_W  # rises to the right
    y_BCHW = picture_view(x_BCHW, chance(3))
    mirrored_B = y_BCHW[:, 1, 4, 0] > y_BCHW[:, 1, 4, -1]
    assert 0.4 < mirrored_B.float().mean() < 0.6
    spread_B = (y_BCHW[:, 1, 4, 0] - y_BCHW[:, 1, 4, -1]).abs()
    assert spread_B.std() > 0.1  # crops of different widths
    coloured_BCHW = torch.rand(300, 3, 8, 8, generator=chance())
    y_BCHW = picture_view(coloured_BCHW, chance(4))
    grey_B = (y_BCHW.std(1) < 1e-6).flatten(1).all(1)
    assert 0.12 < grey_B.float().mean() < 0.28


def test_windows_keep_their_sign_and_time_runs_forward_in_each_piece() -> None:
    """A flip or a turned sign is another movement: going up the stairs for going down."""
    x_BCHW = torch.linspace(1, 2, 128).expand(64, 9, 1, 128)
    y_BCHW = window_view(x_BCHW, chance())
    assert bool((y_BCHW.mean((2, 3)) > 0.5).all())
    pieces = y_BCHW.reshape(64, 9, 4, 32)
    assert bool((pieces[..., 16:].mean(3) > pieces[..., :16].mean(3)).float().mean() > 0.95)
    moved_B = pieces[:, 0, 0].mean(1) > pieces[:, 0, 3].mean(1)
    assert 0.1 < moved_B.float().mean() < 0.5
    assert float((jittered(x_BCHW, chance()) - x_BCHW).std()) == pytest.approx(
        0.05 * float(x_BCHW[0, 0].std()), rel=0.1
    )


def test_the_projection_stands_in_for_the_head_and_leaves_it_as_it_was() -> None:
    """Whatever happens inside, the network that serves must have its own head after it."""
    model = build("lenet", num_classes=4, in_channels=1, image_size=28)
    name, head = linear_head(model, (1, 28, 28))
    weight = head.weight.detach().clone()
    projection = made_projection(head.in_features, 7)
    x_BCHW = torch.rand(3, 1, 28, 28, generator=chance())
    with pytest.raises(ZeroDivisionError), in_place_of_head(model, name, projection):
        assert model(x_BCHW).shape == (3, 64)
        model(x_BCHW).sum().backward()
        assert 1 / 0
    assert model(x_BCHW).shape == (3, 4) and torch.equal(head.weight, weight) and head.weight.grad is None
    assert not any("projection" in key for key in model.state_dict())
    torch.testing.assert_close(made_projection(head.in_features, 7).state_dict(), projection.state_dict())


def test_a_network_without_a_linear_head_is_refused() -> None:
    """A convolution as the last layer has a map in front of it, and no features."""
    model = build("squeezenet", num_classes=4, in_channels=3, image_size=32)
    with pytest.raises(UserError, match="ends in a linear layer"):
        linear_head(model, (3, 32, 32))


def test_the_probe_finds_what_a_line_can_and_touches_the_head_alone() -> None:
    """A probe that trains the trunk is fine-tuning, and says nothing of what was learnt without labels."""
    model = build("lenet", num_classes=3, in_channels=1, image_size=28)
    _, head = linear_head(model, (1, 28, 28))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    y_N = torch.tensor([0, 2] * 20)
    x_NCHW = torch.rand(40, 1, 28, 28, generator=chance()) + (y_N - 1).view(-1, 1, 1, 1)
    with evaluating(model):
        features_NF = features_of(model, head, x_NCHW)
        assert fit_head(head, features_NF, y_N) > 1
        answer_N: Tensor = model(x_NCHW).argmax(1)
    assert torch.equal(answer_N, y_N)
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed and all(model.get_submodule(key.rpartition(".")[0]) is head for key in changed)
    assert fit_head(head, features_NF[:0], y_N[:0]) == 0


def test_few_of_each_takes_the_first_of_every_class() -> None:
    """More labels of a frequent class would make `labels` mean something else on every client."""
    assert few_of_each(torch.tensor([1, 1, 0, 1, 0, 2]), 2).tolist() == [0, 1, 2, 4, 5]
    assert few_of_each(torch.empty(0, dtype=torch.int64), 2).tolist() == []
