"""The temperature of a network's answers: found where it is known, and bounded."""

import pytest
import torch

from fedge.training.label_prior import Corrected
from fedge.training.label_prior.temperature import LEAST, MOST, fitted_temperature
from fedge.training.task import Classes


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_the_temperature_of_known_answers_is_found(temperature):
    """Would break if logits were multiplied by it: labels are drawn from the softmax of logits / temperature."""
    generator = torch.Generator().manual_seed(5)
    logits_NC = 3 * torch.randn(20_000, 4, generator=generator)
    y_N = torch.multinomial((logits_NC / temperature).softmax(1), 1, generator=generator)[:, 0]
    assert fitted_temperature(logits_NC, y_N) == pytest.approx(temperature, abs=0.051)


def test_it_is_bounded():
    """Would break if a network without a fault on its training samples were made as sure as can be."""
    logits_NC = torch.eye(4).repeat(5, 1)
    y_N = torch.arange(4).repeat(5)
    assert fitted_temperature(logits_NC, y_N) == LEAST
    assert fitted_temperature(50 * logits_NC, y_N.flip(0)) == MOST
    assert fitted_temperature(logits_NC[:0], y_N[:0]) == 1


def test_a_prior_weighs_by_the_temperature():
    """Would break if unsure answers were corrected as much as sure ones: p at temperature T times the ratio."""
    prior_C, factory_C = torch.tensor([0.8, 0.2]), torch.tensor([0.5, 0.5])
    logits_NC = torch.tensor([[0.3, 0.7]])
    out_NC = Corrected.by(Classes(), prior_C, factory_C, 0.5).outputs(logits_NC, 1)
    wanted_NC = (logits_NC / 0.5).softmax(1) * prior_C / factory_C
    assert torch.allclose((out_NC / 0.5).softmax(1), wanted_NC / wanted_NC.sum())
