"""The probe: the network's head, trained on few labels while the trunk stands still.

    features   f(x) of the labelled samples, in evaluation mode, once
    head       W, b = argmin of the mean cross-entropy + (decay / 2) ||W||^2, from 0, by L-BFGS: no rate, no chance

Features are standardised by the labelled samples' mean and deviation for the fit, and the head is then written for the
features as they are. Shapes: N labelled samples, F features, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DECAY = 1e-2
STEPS, HISTORY = 100, 10
"""Of L-BFGS: at most, and remembered."""
_LEAST_STD = 1e-3


def few_of_each(y_N: Tensor, count: int) -> Tensor:
    """Of each class the first `count` samples, rising: fewer where there are fewer."""
    chosen = [torch.nonzero(y_N == label)[:count, 0] for label in y_N.unique().tolist()]
    return torch.cat(chosen).sort().values if chosen else torch.empty(0, dtype=torch.int64)


def features_of(model: nn.Module, head: nn.Linear, x_NCHW: Tensor) -> Tensor:
    """What arrives at the head [N, F], without a gradient; the model must be in evaluation mode."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            model(x_NCHW)
    finally:
        handle.remove()
    return seen[-1]


def probe_bytes(head: nn.Linear, samples: int) -> int:
    """What fitting the head takes at most, beside the network: features and their scaled copy with its products, and
    the solver's two vectors for each step that it remembers beside some of its own."""
    vectors = 2 * HISTORY + 10
    per_sample = 3 * head.in_features + 4 * head.out_features
    return 4 * (samples * per_sample + vectors * (head.weight.numel() + head.out_features))


def fit_head(head: nn.Linear, features_NF: Tensor, y_N: Tensor, decay: float = DECAY) -> int:
    """Train the head in place; says how many times the labelled features went through it, forward and back.

    A class without a label is no answer that pays here. Nothing is done without a sample.
    """
    if not len(y_N):
        return 0
    mean_F = features_NF.mean(0)
    std_F = features_NF.std(0, correction=0).clamp(min=_LEAST_STD)
    scaled_NF = (features_NF - mean_F) / std_F
    weight = torch.zeros_like(head.weight, requires_grad=True)
    bias = torch.zeros(len(head.weight), device=head.weight.device, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, history_size=HISTORY, line_search_fn="strong_wolfe"
    )
    passes = 0

    def closure() -> Tensor:
        nonlocal passes
        passes += 1
        solver.zero_grad()
        loss = F.cross_entropy(scaled_NF @ weight.T + bias, y_N) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    with torch.no_grad():
        head.weight.copy_(weight / std_F)
        if head.bias is not None:
            head.bias.copy_(bias - head.weight @ mean_F)
    return passes
