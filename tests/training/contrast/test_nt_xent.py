"""NT-Xent and the contrast score against what they say they are."""

import math

import pytest
import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.contrast import NtXent, contrast_scores, nt_xent
from fedge.training.contrast.nt_xent import partners
from fedge.training.contrast.scores import mirrored


def test_two_pairs_by_hand() -> None:
    """Another sum of negatives, a view that counts itself, or a missing root of the norm trains something else."""
    out_VD = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.6, 0.8], [0.0, 1.0]])  # pairs (0, 2) and (1, 3)
    half = 2.0  # 1 / temperature
    like = {(0, 2): 0.6, (0, 1): 0.0, (0, 3): 0.0, (2, 1): 0.8, (2, 3): 0.8, (1, 3): 1.0}

    def loss(view: int, other: int) -> float:
        near = [like[(view, k) if (view, k) in like else (k, view)] for k in range(4) if k != view]
        own = like[(view, other) if (view, other) in like else (other, view)]
        return -math.log(math.exp(half * own) / sum(math.exp(half * s) for s in near))

    expected = [loss(0, 2), loss(1, 3), loss(2, 0), loss(3, 1)]
    torch.testing.assert_close(nt_xent(out_VD, partners(4), 0.5), torch.tensor(expected))


def test_loss_is_blind_to_length_and_lowest_for_equal_views() -> None:
    """Embeddings compared by length would let the network win by growing."""
    generator = torch.Generator().manual_seed(0)
    one_ND = torch.randn(6, 5, generator=generator)
    same_VD = torch.cat([one_ND, one_ND])
    torch.testing.assert_close(nt_xent(same_VD * 7, partners(12), 0.3), nt_xent(same_VD, partners(12), 0.3))
    other_VD = torch.cat([one_ND, torch.randn(6, 5, generator=generator)])
    assert nt_xent(same_VD, partners(12), 0.3).mean() < nt_xent(other_VD, partners(12), 0.3).mean()


@pytest.mark.parametrize("targets", [torch.tensor([0, 1]), torch.tensor([1, 5]), torch.tensor([1.0, 0.0])])
def test_a_view_needs_another_for_its_partner(targets: Tensor) -> None:
    """Class labels passed as partners would train a supervised loss under another name."""
    with pytest.raises(UserError, match="partner"):
        NtXent().check_targets(targets, torch.zeros(2, 3))


class Corners(nn.Module):
    """Top left, top right, and 1."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        assert not self.training
        return torch.stack([x_NCHW[:, 0, 0, 0], x_NCHW[:, 0, 0, -1], torch.ones(len(x_NCHW))], 1)


def test_a_symmetric_picture_scores_zero() -> None:
    """A score that is not of the mirror image would rank by luck; it must leave the network's mode alone."""
    model = Corners().train()
    x_NCHW = torch.zeros(2, 1, 4, 4)
    x_NCHW[0, 0, 0, [0, -1]] = 2.0
    x_NCHW[1, 0, 0, 0] = 2.0
    score_N = contrast_scores(model, x_NCHW, mirrored)
    torch.testing.assert_close(score_N, torch.tensor([0.0, 0.8]))  # (2, 0, 1) . (0, 2, 1) / 5
    assert model.training
