"""A head trained on features: what they are, what is drawn of them, and which networks have none."""

import pytest
import torch
from torch import nn

from fedge.errors import UserError
from fedge.models import build
from fedge.training.features import Gaussians, Stored, Trunk, drawn_epoch
from fedge.training.features.trunk import in_batches
from fedge.training.macs import count_forward
from fedge.training.pruning import prune

SHAPE = (1, 16, 16)


def lenet() -> nn.Module:
    torch.manual_seed(3)
    return build("lenet", num_classes=4, in_channels=1, image_size=(16, 16))


def test_the_head_of_the_features_is_the_network():
    """Would break if features were taken before or behind the head's input, or in training mode."""
    model = lenet().train()
    trunk, x_BCHW = Trunk.of(model, SHAPE), torch.randn(5, *SHAPE)
    head_BK = trunk.head(trunk.features(x_BCHW))
    assert torch.equal(head_BK, model.eval()(x_BCHW))
    head = next(layer for layer in count_forward(model, SHAPE).layers if layer.name == trunk.name)
    assert trunk.macs + head.forward == count_forward(model, SHAPE).forward
    assert trunk.features_of([x_BCHW, x_BCHW[:2]]).shape == (7, trunk.width)


class Squashed(nn.Module):
    """Does something behind its head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(256, 4)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(x_BCHW.flatten(1)).tanh()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Squashed(), "behind it"),
        (build("squeezenet", num_classes=4, in_channels=1, image_size=(16, 16)), "Conv2d"),
    ],
)
def test_networks_without_such_a_head_are_refused_in_one_line(model, said):
    """Would break if a head were trained that is not what the network answers by."""
    with pytest.raises(UserError, match=said) as caught:
        Trunk.of(model, SHAPE)
    assert "\n" not in str(caught.value)


def test_gaussians_are_the_classes_means_and_the_pooled_covariance():
    """Would break if the covariance were of all samples around one mean, or of too few degrees of freedom."""
    z_NF = torch.tensor([[0.0, 0.0], [2.0, 0.0], [10.0, 1.0], [10.0, 5.0]])
    found = Gaussians.fit(z_NF, torch.tensor([0, 0, 2, 2]), 3)
    assert found.mean_CF.tolist() == [[1, 0], [0, 0], [10, 3]]
    assert found.covariance_FF.tolist() == [[1, 0], [0, 4]]  # (1 + 1) / 2 and (4 + 4) / 2
    assert found.present_C.tolist() == [True, False, True]
    assert found.nbytes == 4 * (3 * 2 + 2 * 2)


def test_drawn_features_have_the_means_and_the_covariance():
    """Would break if the root of the covariance stood on the wrong side."""
    covariance_FF = torch.tensor([[2.0, 1.2], [1.2, 1.0]])
    shipped = Gaussians(torch.tensor([[0.0, 0.0], [5.0, -5.0]]), covariance_FF, torch.tensor([9, 9]))
    z_BF = shipped.draw(torch.ones(20_000, dtype=torch.long), torch.Generator().manual_seed(1))
    assert z_BF.mean(0).tolist() == pytest.approx([5, -5], abs=0.05)
    assert torch.cov(z_BF.T).flatten().tolist() == pytest.approx(covariance_FF.flatten().tolist(), abs=0.06)


def test_stored_features_are_the_factorys_own():
    """Would break if a feature of another class, or a blank place, were drawn."""
    z_NF = torch.arange(12.0).reshape(6, 2)
    y_N = torch.tensor([0, 0, 0, 1, 2, 2])
    shipped = Stored.chosen(z_NF, y_N, 4, 2, seed=5)
    assert shipped.count_C.tolist() == [2, 1, 2, 0]
    assert shipped.nbytes == 4 * 5 * 2
    y_B = torch.tensor([0, 1, 2] * 30)
    for z_F, y in zip(shipped.draw(y_B, torch.Generator().manual_seed(1)), y_B, strict=True):
        assert any(torch.equal(z_F, own_F) for own_F in z_NF[y_N == y])


def test_an_epoch_is_drawn_by_the_classes_shares():
    """Would break if absent classes were drawn, if shares were ignored, or if the epoch were of another length."""
    shipped = Stored.chosen(torch.randn(40, 2), torch.arange(40) % 4, 5, 3, seed=5)
    share_C = torch.tensor([3.0, 1.0, 0.0, 0.0, 9.0])  # of the last there is none
    batches = list(drawn_epoch(shipped, share_C, 2_001, 64, seed=2))
    y_N = torch.cat([y_B for _, y_B in batches])
    assert len(y_N) == 2_001 and len(batches) == 32
    assert torch.bincount(y_N, minlength=5)[2:].tolist() == [0, 0, 0]
    assert float((y_N == 0).double().mean()) == pytest.approx(0.75, abs=0.04)
    again = torch.cat([y_B for _, y_B in drawn_epoch(shipped, share_C, 2_001, 64, seed=2)])
    assert torch.equal(y_N, again)
    with pytest.raises(UserError, match="none of the device's classes"):
        list(drawn_epoch(shipped, torch.tensor([0.0, 0, 0, 0, 1]), 10, 5, seed=2))


@pytest.mark.parametrize("kind", ["gaussians", "stored"])
def test_cutting_takes_the_same_channels(kind):
    """Would break if means and covariance, or the head, were cut by different channels."""
    shape = (3, 16, 16)
    model = build("resnet8", num_classes=4, in_channels=3, image_size=shape[1:])
    record = prune(model, 0.5, example_input=torch.zeros(1, *shape))
    trunk = Trunk.of(model, shape)
    kept = record.kept[trunk.name].inputs
    assert len(kept) == trunk.width < 64
    z_NF, y_N = torch.randn(60, 64), torch.arange(60) % 4
    if kind == "gaussians":
        whole = Gaussians.fit(z_NF, y_N, 4).cut(kept)
        of_cut = Gaussians.fit(z_NF[:, list(kept)], y_N, 4)
        assert torch.equal(whole.mean_CF, of_cut.mean_CF)
        assert torch.allclose(whole.covariance_FF, of_cut.covariance_FF, atol=1e-6)
    else:
        whole = Stored.chosen(z_NF, y_N, 4, 3, 7).cut(kept)
        assert torch.equal(whole.features_CkF, Stored.chosen(z_NF[:, list(kept)], y_N, 4, 3, 7).features_CkF)
    assert whole.draw(torch.tensor([0, 3]), torch.Generator()).shape == (2, trunk.width)


def test_kept_features_come_in_the_rows_order():
    """Would break if an epoch over kept features took other mini-batches than one over the rows."""
    rows: list[int] = []
    z_NF = torch.arange(7.0)[:, None]
    batches = list(in_batches(z_NF, torch.arange(7), 3, 11, lambda rows_B: rows.extend(rows_B.tolist())))
    wanted = torch.randperm(7, generator=torch.Generator().manual_seed(11)).tolist()
    assert torch.cat([y_B for _, y_B in batches]).tolist() == rows == wanted
    assert [len(y_B) for _, y_B in batches] == [3, 3, 1]
