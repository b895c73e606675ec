"""Answers among some of the classes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedge.training.among import Among
from fedge.training.task import Classes

TASK = Among(Classes(), (1, 3))


def test_the_loss_by_hand() -> None:
    """Breaks if another class's logit takes part in a loss."""
    out_BK = torch.tensor([[9.0, 1.0, 9.0, 2.0]])
    expected = math.log(math.exp(1) + math.exp(2)) - 2
    assert TASK.loss(out_BK, torch.tensor([3])).tolist() == pytest.approx([expected])
    assert float(TASK.mean_loss(out_BK, torch.tensor([3]))) == pytest.approx(expected)


def test_the_answer_is_one_of_the_classes() -> None:
    """Breaks if the best of all classes is the answer, or a class never seen before is ever answered right."""
    out_BK = torch.tensor([[9.0, 1.0, 9.0, 2.0], [9.0, 1.0, 0.0, 2.0]])
    assert TASK.right(out_BK, torch.tensor([3, 0])).tolist() == [True, False]
    assert TASK.loss(out_BK, torch.tensor([3, 0]))[1] == math.inf


@given(st.integers(0, 2**31), st.integers(2, 6), st.booleans())
def test_among_all_it_is_the_task_itself(seed: int, classes: int, smooth: bool) -> None:
    """Breaks if `own` of a client that has every class is another training than `all`."""
    generator = torch.Generator().manual_seed(seed)
    out_BK = torch.randn(5, classes, generator=generator)
    y_B = torch.randint(0, classes, (5,), generator=generator)
    plain = Classes(0.1 if smooth else 0.0)
    among = Among(plain, tuple(range(classes)))
    assert torch.equal(among.loss(out_BK, y_B), plain.loss(out_BK, y_B))
    assert torch.equal(among.mean_loss(out_BK, y_B), plain.mean_loss(out_BK, y_B))
    assert torch.equal(among.right(out_BK, y_B), plain.right(out_BK, y_B))


def test_other_logits_get_no_gradient() -> None:
    """Breaks if training on two classes pushes the others' logits down."""
    out_BK = torch.randn(4, 4, requires_grad=True, generator=torch.Generator().manual_seed(1))
    TASK.mean_loss(out_BK, torch.tensor([1, 3, 3, 1])).backward()
    gradient_BK = out_BK.grad
    assert isinstance(gradient_BK, Tensor)
    assert not gradient_BK[:, [0, 2]].any()
    assert gradient_BK[:, [1, 3]].all()


def test_pixels_have_classes_too() -> None:
    """Breaks if a class for each pixel is narrowed along the wrong dimension."""
    out_BKHW = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    y_BHW = torch.tensor([1, 3] * 9).view(2, 3, 3)
    kept_BOHW, place_BHW = out_BKHW[:, [1, 3]], (y_BHW == 3).long()
    expected_B = cross_entropy(kept_BOHW, place_BHW, reduction="none").flatten(1).mean(1)
    assert torch.allclose(TASK.loss(out_BKHW, y_BHW), expected_B)
    assert torch.equal(TASK.right(out_BKHW, y_BHW), kept_BOHW.argmax(1) == place_BHW)


def test_one_class_is_always_right_and_teaches_nothing() -> None:
    """Breaks if a client of one class trains on noise."""
    alone, out_BK = Among(Classes(), (2,)), torch.randn(3, 4, requires_grad=True)
    y_B = torch.full((3,), 2)
    assert alone.right(out_BK, y_B).all()
    alone.mean_loss(out_BK, y_B).backward()
    assert out_BK.grad is not None and not out_BK.grad.any()
