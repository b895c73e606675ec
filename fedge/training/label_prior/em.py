"""A label prior from unlabelled samples, by expectation and maximisation (Saerens, Latinne, Decaestecker, 2002).

Where the classes look as they did in the factory, and only their frequencies are others,

    p(y | x) on the device  ~  p(y | x) of the factory model * pi_y / pi0_y

and pi is the fixed point of

    pi_y  <-  (sum over n samples of the corrected p(y | x) + a C pi0_y) / (n + a C)

a is the pseudo-count per class: what the factory's prior weighs, in samples. With the uniform prior of a balanced
factory set it is the plain `+ a`. Without it (a = 0) few samples among many classes are explained by a few classes
alone, and the correction does harm. Shapes: N samples, C classes.
"""

import math

import torch
from torch import Tensor

from fedge.errors import UserError

PSEUDO_COUNT = 1.0
MOST_STEPS = 1000
_STILL = 1e-7  # the largest change of a share that is none


def em_prior(probabilities_NC: Tensor, factory_prior_C: Tensor, pseudo_count: float = PSEUDO_COUNT) -> Tensor:
    """The shares pi of the classes [C], float64, that sum to 1, among the N samples that a network answered.

    probabilities_NC: its answers, 0..1, each row summing to 1. factory_prior_C: the shares of the classes in what it
    was trained on, 0..1, which it has in mind. pseudo_count: 0 or more; 0 is the maximum of the likelihood, and towards
    infinity, as without any sample, the factory's prior stays. A class that the factory did not have gets no share.
    UserError for shapes that do not fit, for answers that are no probabilities, and for a negative count.
    """
    p_NC, prior_C = probabilities_NC.detach().cpu().double(), factory_prior_C.detach().cpu().double()
    _require(p_NC, prior_C, pseudo_count)
    samples, pseudo = len(p_NC), pseudo_count * len(prior_C)
    if not samples or math.isinf(pseudo):
        return prior_C
    present_C = prior_C > 0
    likelihood_NC = torch.where(present_C, p_NC / prior_C.where(present_C, torch.ones_like(prior_C)), 0.0)
    likelihood_NC = likelihood_NC[
        likelihood_NC.sum(1) > 0
    ]  # a sample that no known class explains says nothing
    pi_C = prior_C
    for _ in range(MOST_STEPS if len(likelihood_NC) else 0):
        joint_NC = likelihood_NC * pi_C
        total_N1 = joint_NC.sum(1, keepdim=True)
        posterior_NC = torch.where(total_N1 > 0, joint_NC / total_N1.clamp(min=1e-300), prior_C)
        counts_C = posterior_NC.sum(0) + pseudo * prior_C
        before_C, pi_C = pi_C, counts_C / counts_C.sum()
        if float((pi_C - before_C).abs().max()) < _STILL:
            break
    return pi_C


def shift_of(prior_C: Tensor, factory_prior_C: Tensor) -> float:
    """How far two label priors lie apart: their total variation, 0..1; 0: equal, 1: no class in common."""
    return 0.5 * float((prior_C - factory_prior_C).abs().sum())


def believed(estimate_C: Tensor, factory_prior_C: Tensor, least_shift: float) -> Tensor:
    """`estimate_C`, or the factory's prior where that is nearer than `least_shift` (0..1; 0: every estimate).

    EM takes whatever the network confuses for another share of the classes. Where people are new and the classes are
    not, that is all it finds, and it finds a little of it everywhere: a small shift is more often an error of the
    network's than a fact.
    """
    return factory_prior_C if shift_of(estimate_C, factory_prior_C) < least_shift else estimate_C


def corrected(probabilities_NC: Tensor, prior_C: Tensor, factory_prior_C: Tensor) -> Tensor:
    """Answers of a network of the factory's prior where `prior_C` is the prior: p * pi / pi0, each row summing to 1.

    Bit for bit what came in where the two priors are equal.
    """
    if torch.equal(prior_C, factory_prior_C):
        return probabilities_NC
    weighted_NC = probabilities_NC * log_ratio(prior_C, factory_prior_C).exp().to(probabilities_NC)
    return weighted_NC / weighted_NC.sum(1, keepdim=True)


def log_ratio(prior_C: Tensor, factory_prior_C: Tensor) -> Tensor:
    """What is added to a network's logits to correct its answers: log(pi / pi0) [C]; 0 of a class that neither has."""
    both_C = (prior_C > 0) & (factory_prior_C > 0)
    ratio_C = torch.where(both_C, prior_C, 1.0) / torch.where(both_C, factory_prior_C, 1.0)
    return torch.where((prior_C <= 0) & (factory_prior_C > 0), -math.inf, ratio_C.log())


def _require(p_NC: Tensor, prior_C: Tensor, pseudo_count: float) -> None:
    if p_NC.dim() != 2 or prior_C.dim() != 1 or p_NC.shape[1] != len(prior_C):
        shapes = f"{list(p_NC.shape)} and {list(prior_C.shape)}"
        raise UserError(f"em_prior: probabilities and prior are {shapes}; [N, C] and [C] are wanted")
    for name, numbers in (("probabilities", p_NC), ("the factory's prior", prior_C[None])):
        sums = numbers.sum(1)
        if not bool(((numbers >= 0).all(1) & ((sums - 1).abs() < 1e-3)).all()):
            raise UserError(f"em_prior: {name} must be 0..1 and sum to 1: take the softmax of the logits")
    if not pseudo_count >= 0:
        raise UserError(f"em_prior: pseudo_count is {pseudo_count:g}; it must be 0 or more")
