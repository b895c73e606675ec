"""What exits learn from: labels, the last exit's answers, its probabilities."""

import pytest
import torch
import torch.nn.functional as F

from fedge.errors import UserError
from fedge.training.exits import ExitTask
from fedge.training.task import Classes


def outputs(samples: int = 4, classes: int = 5, exits: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(samples, classes, exits, generator=generator).requires_grad_()


def test_labels_teach_every_exit() -> None:
    """Would break if an exit were left out, weighed otherwise, or the last one trained where it only teaches."""
    out_BCE, y_B = outputs(), torch.tensor([0, 1, 2, 3])
    early = [F.cross_entropy(out_BCE[:, :, k], y_B, reduction="none") for k in range(3)]
    assert torch.allclose(ExitTask(Classes()).loss(out_BCE, y_B), early[0] + early[1])
    assert torch.allclose(ExitTask(Classes(), whole=False).loss(out_BCE, y_B), sum(early))
    assert torch.allclose(ExitTask(Classes(), trains_last=True).loss(out_BCE, y_B), sum(early))


@pytest.mark.parametrize("teach", ["labels", "hard", "soft"])
def test_what_a_sample_without_a_label_teaches(teach: str) -> None:
    """Would break if an unknown label was learnt as some class: labels teach nothing then. The teacher never learns."""
    out_BCE = outputs()
    ExitTask(Classes(), teach).mean_loss(out_BCE, torch.full((4,), -1)).backward()
    assert bool(out_BCE.grad[:, :, :2].any()) is (teach != "labels")
    assert not out_BCE.grad[:, :, 2].any()


def test_hard_is_the_label_that_the_last_exit_gives() -> None:
    """Would break if the teacher were another exit, or known labels gave way to it."""
    out_BCE = outputs()
    answer_B = out_BCE[:, :, 2].argmax(1)
    by_hand = ExitTask(Classes(), "labels").loss(out_BCE, answer_B)
    assert torch.allclose(ExitTask(Classes(), "hard").loss(out_BCE, torch.full((4,), -1)), by_hand)
    y_B = torch.tensor([0, -1, 1, -1])
    mixed = torch.where(y_B >= 0, ExitTask(Classes()).loss(out_BCE, y_B.clamp(min=0)), by_hand)
    assert torch.allclose(ExitTask(Classes(), "hard").loss(out_BCE, y_B), mixed)


def test_soft_is_the_divergence_from_the_last_exit() -> None:
    """Would break if the divergence were the other way round, or not scaled by T squared; it is 0 between equals."""
    out_BCE, none_B = outputs(exits=2), torch.full((4,), -1)
    p_BC, q_BC = (out_BCE[:, :, 1] / 2).softmax(1), (out_BCE[:, :, 0] / 2).softmax(1)
    by_hand = 4 * (p_BC * (p_BC.log() - q_BC.log())).sum(1)
    assert torch.allclose(
        ExitTask(Classes(), "soft", temperature=2.0).loss(out_BCE, none_B), by_hand, atol=1e-5
    )
    same_BCE = out_BCE[:, :, :1].expand(-1, -1, 2)
    assert torch.allclose(ExitTask(Classes(), "soft").loss(same_BCE, none_B), torch.zeros(4), atol=1e-6)


@pytest.mark.parametrize("teach", ["labels", "hard", "soft"])
def test_among_some_classes(teach: str) -> None:
    """Would break if classes that are no answers took part in the loss: their logits have no gradient."""
    out_BCE = outputs()
    ExitTask(Classes(), teach, among=(1, 3)).mean_loss(out_BCE, torch.tensor([1, 3, -1, -1])).backward()
    assert not out_BCE.grad[:, [0, 2, 4]].any() and out_BCE.grad[:, [1, 3]].any()


def test_wrong_outputs_and_targets_are_one_line() -> None:
    """Would break if a network without exits, or a label that is no class, were trained in silence."""
    task = ExitTask(Classes())
    with pytest.raises(UserError, match="exits"):
        task.outputs(torch.zeros(4, 5), 4)
    for y_B in (
        torch.tensor([0, 1, 2, 5]),
        torch.tensor([0, 1, 2, -2]),
        torch.zeros(4),
        torch.zeros(3).long(),
    ):
        with pytest.raises(UserError, match="targets"):
            task.check_targets(y_B, outputs())
    task.check_targets(torch.tensor([0, -1, 4, -1]), outputs())
