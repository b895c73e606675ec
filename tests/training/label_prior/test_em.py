"""The label prior by EM: by hand, at its limits, and where it must not move."""

import math

import pytest
import torch

from fedge.errors import UserError
from fedge.training.label_prior import believed, corrected, em_prior
from fedge.training.label_prior.em import shift_of

EVEN = torch.tensor([0.5, 0.5])


def test_two_classes_by_hand():
    """Would break if the fixed point were another: with a = 1 it solves pi (n + 2) = sum of posteriors + 1.

    Samples of likelihood ratios r = p / (1 - p) have the posterior r pi / (r pi + 1 - pi), and the root is found by
    halving the interval, without any EM.
    """
    p = [0.9, 0.8, 0.6, 0.3]
    ratios = [value / (1 - value) for value in p]

    def surplus(pi: float) -> float:
        return sum(r * pi / (r * pi + 1 - pi) for r in ratios) + 1 - pi * (len(p) + 2)

    low, high = 1e-9, 1 - 1e-9
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if surplus(middle) > 0 else (low, middle)
    pi_C = em_prior(torch.tensor([[value, 1 - value] for value in p]), EVEN, 1.0)
    assert pi_C.tolist() == pytest.approx([low, 1 - low], abs=1e-5)


def test_certain_answers_are_counted():
    """Would break if the pseudo-count were added once, or for each sample: (3 + a) / (4 + 2 a)."""
    p_NC = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    for a in (0.0, 1.0, 5.0):
        assert em_prior(p_NC, EVEN, a).tolist() == pytest.approx(
            [(3 + a) / (4 + 2 * a), (1 + a) / (4 + 2 * a)]
        )


def test_the_prior_of_a_balanced_sample_stays():
    """Would break if the estimate were biased: calibrated answers drawn from the factory's prior leave it there."""
    generator = torch.Generator().manual_seed(3)
    prior_C = torch.tensor([0.5, 0.3, 0.2])
    y_N = torch.multinomial(prior_C, 20_000, replacement=True, generator=generator)
    x_ND = torch.eye(3)[y_N] + torch.randn(20_000, 3, generator=generator)
    logits_NC = x_ND + prior_C.log()  # the exact posterior of unit normals around the corners
    assert em_prior(logits_NC.softmax(1), prior_C, 1.0).tolist() == pytest.approx(prior_C.tolist(), abs=0.02)


def test_a_shifted_prior_is_found():
    """Would break if the factory's prior were not divided out, as the plain mean of the answers does not."""
    generator = torch.Generator().manual_seed(4)
    prior_C, true_C = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.1, 0.1, 0.8])
    y_N = torch.multinomial(true_C, 5_000, replacement=True, generator=generator)
    x_ND = torch.eye(3)[y_N] * 1.5 + torch.randn(5_000, 3, generator=generator)
    p_NC = (1.5 * x_ND + prior_C.log()).softmax(1)
    assert em_prior(p_NC, prior_C, 1.0).tolist() == pytest.approx(true_C.tolist(), abs=0.03)
    assert abs(float(p_NC.mean(0)[2]) - 0.8) > 0.2


def test_a_small_shift_is_not_believed():
    """Breaks if an estimate near the factory's prior is applied, or a far one is not; at the bound it is."""
    near_C, far_C = torch.tensor([0.7, 0.3]).double(), torch.tensor([0.9, 0.1]).double()
    even_C = torch.tensor([0.5, 0.5]).double()
    assert shift_of(near_C, even_C) == pytest.approx(0.2) and shift_of(far_C, even_C) == pytest.approx(0.4)
    assert torch.equal(believed(near_C, even_C, 0.3), even_C)
    assert torch.equal(believed(far_C, even_C, 0.3), far_C)
    assert torch.equal(believed(near_C, even_C, 0.0), near_C)
    assert torch.equal(believed(near_C, even_C, shift_of(near_C, even_C)), near_C)


@pytest.mark.parametrize("pseudo_count", [1e12, math.inf])
def test_a_large_pseudo_count_corrects_nothing(pseudo_count):
    """Would break if the pseudo-count drew towards equal shares and not towards the factory's."""
    prior_C = torch.tensor([0.7, 0.2, 0.1])
    p_NC = torch.tensor([[0.0, 0.1, 0.9]] * 50)
    pi_C = em_prior(p_NC, prior_C, pseudo_count)
    assert pi_C.tolist() == pytest.approx(prior_C.tolist(), abs=1e-6)
    assert corrected(p_NC, pi_C, prior_C)[0].tolist() == pytest.approx(p_NC[0].tolist(), abs=1e-4)


def test_no_sample_says_nothing():
    """Would break if the first round of an empty device divided by zero."""
    assert em_prior(torch.empty(0, 2), EVEN, 1.0).tolist() == [0.5, 0.5]
    assert em_prior(torch.empty(0, 2), EVEN, 0.0).tolist() == [0.5, 0.5]


def test_a_class_that_the_factory_lacked_gets_no_share():
    """Would break if 0 / 0 came out as a number: the others share what there is."""
    prior_C = torch.tensor([0.5, 0.5, 0.0])
    pi_C = em_prior(torch.tensor([[0.8, 0.1, 0.1], [0.0, 0.0, 1.0]]), prior_C, 1.0)
    assert float(pi_C[2]) == 0 and float(pi_C.sum()) == pytest.approx(1)
    assert bool(corrected(torch.tensor([[0.8, 0.1, 0.1]]), pi_C, prior_C).isfinite().all())


def test_correction_by_the_same_prior_is_none():
    """Would break if an answer changed by a bit where there is nothing to correct."""
    p_NC = torch.rand(4, 2).softmax(1)
    assert corrected(p_NC, EVEN, EVEN) is p_NC


@pytest.mark.parametrize(
    ("p_NC", "prior_C", "pseudo_count", "said"),
    [
        (torch.tensor([[2.0, -1.0]]), EVEN, 1.0, "softmax"),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([1.0]), 1.0, "are wanted"),
        (torch.tensor([[0.5, math.nan]]), EVEN, 1.0, "softmax"),
        (torch.tensor([[0.5, 0.5]]), EVEN, -1.0, "pseudo_count"),
    ],
)
def test_wrong_input_is_one_line(p_NC, prior_C, pseudo_count, said):
    """Would break if logits were taken for probabilities without a word."""
    with pytest.raises(UserError, match=said) as caught:
        em_prior(p_NC, prior_C, pseudo_count)
    assert "\n" not in str(caught.value)
