"""What a channel is worth: the rankings that pruning can go by, behind one small protocol.

A criterion gives every unit of a `Coupling` a score; the lowest are cut first. Scores of one call are compared
over the whole network, so they must mean the same in every layer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedge.errors import UserError
from fedge.training.coupling import PINNED, Coupling
from fedge.training.surgery import filters_of

AT_ONCE = 8  # samples, so that ranking takes less memory than a training step; scores do not depend on it
Batches = Iterable[tuple[Tensor, Tensor]]
PROJECTION_NAMES = frozenset({"shortcut", "downsample"})  # ADaPT ranks no projection on a shortcut


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at. `model` is a spare copy in evaluation mode; `batches` are the client's own."""

    model: nn.Module
    coupling: Coupling
    batches: Batches | None
    generator: torch.Generator

    def data(self, criterion: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The client's batches of (x, y), `AT_ONCE` samples at a time; UserError without any."""
        empty = True
        for x_BCHW, y_B in self.batches or ():
            empty = False
            yield from zip(x_BCHW.split(AT_ONCE), y_B.split(AT_ONCE), strict=True)
        if empty:
            raise UserError(
                f"criterion {criterion!r} ranks channels by the client's own data and got none: pass batches= "
                "with at least one, or take 'l1', which needs none"
            )


class Criterion(Protocol):
    """Scores float [units], higher is kept longer; infinity is never cut."""

    def __call__(self, evidence: Evidence) -> Tensor: ...


def l1(evidence: Evidence) -> Tensor:
    """Mean absolute weight of a filter, the least over the unit's filters (ADaPT, arXiv 2006.08554).

        score(u) = min over filters f in u of  |W_f|_1 / (weights in f)

    Min, because ADaPT cuts the whole unit as soon as the list reaches any member. It sees the data only through
    the fine-tuned weights.
    """
    score_U = torch.full((evidence.coupling.units,), torch.inf)
    for name, layer in evidence.coupling.producers(evidence.model).items():
        if PROJECTION_NAMES.isdisjoint(name.split(".")):
            unit_O = evidence.coupling.unit_of_output[name]
            mean_O = filters_of(layer).abs().mean(dim=1).float().cpu()
            score_U.scatter_reduce_(0, unit_O[unit_O != PINNED], mean_O[unit_O != PINNED], "amin")
    return score_U


def taylor(evidence: Evidence) -> Tensor:
    """First-order effect on the client's loss of cutting the unit (Molchanov et al., CVPR 2019, section 3).

        score(u) = mean over samples n of  ( sum over gates z of u:  d loss_n / d z )^2  at z = 1

    A gate multiplies one input channel of a layer that reads the unit, so that z = 0 is the cut itself, residual
    sums and concatenations included (there: gates behind batch norms, and batches instead of samples).
    """
    total_U, samples = torch.zeros(evidence.coupling.units), 0
    for x_BCHW, y_B in evidence.data("taylor"):
        with _gated(evidence, _gate_of) as gates, torch.enable_grad():
            loss = functional.cross_entropy(evidence.model(x_BCHW), y_B, reduction="sum")
            slopes = torch.autograd.grad(loss, list(gates.values()))
        slope_BU = torch.zeros(len(y_B), evidence.coupling.units)
        for name, slope_BC in zip(gates, slopes, strict=True):
            _add_by_unit(slope_BU, slope_BC.flatten(1), evidence.coupling.unit_of_input[name])
        total_U += slope_BU.square().sum(dim=0)
        samples += len(y_B)
    return total_U / samples


def activation(evidence: Evidence) -> Tensor:
    """Mean absolute activation on the client's data (Molchanov et al., ICLR 2017, section 2.2).

        score(u) = max over layers that read u of  mean over samples, positions |x_c|  /  its l2 norm over c

    The norm over a layer's channels is that paper's, so that layers compare. Max, because a unit that any reader
    sees active is in use.
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, x_BC: Tensor) -> Tensor:
        positions_BC = x_BC.detach().abs().flatten(2).mean(2) if x_BC.dim() > 2 else x_BC.detach().abs()
        sums[name] = sums.get(name, 0) + positions_BC.sum(dim=0).cpu()
        return x_BC

    for x_BCHW, _ in evidence.data("activation"):
        with _gated(evidence, lambda _gates, name, x: add(name, x)), torch.no_grad():
            evidence.model(x_BCHW)
    score_U = torch.zeros(evidence.coupling.units)
    for name, sum_C in sums.items():
        unit_C = evidence.coupling.unit_of_input[name]
        level_C = sum_C / sum_C.norm().clamp_min(torch.finfo(sum_C.dtype).tiny)
        score_U.scatter_reduce_(0, unit_C[unit_C != PINNED], level_C[unit_C != PINNED].float(), "amax")
    return score_U


def random(evidence: Evidence) -> Tensor:
    """Uniform scores: the floor any criterion must beat (Mittal et al., arXiv 1801.10447)."""
    return torch.rand(evidence.coupling.units, generator=evidence.generator)


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {"l1": l1, "taylor": taylor, "activation": activation, "random": random}
)

Gates = dict[str, Tensor]


def _gate_of(gates: Gates, name: str, x_BC: Tensor) -> Tensor:
    """x times a gate of ones [B, C, 1, ...], one per sample and channel, which autograd can see."""
    gates[name] = torch.ones(*x_BC.shape[:2], *[1] * (x_BC.dim() - 2), dtype=x_BC.dtype, device=x_BC.device)
    return x_BC * gates[name].requires_grad_()


@contextmanager
def _gated(evidence: Evidence, at_input: Callable[[Gates, str, Tensor], Tensor]) -> Iterator[Gates]:
    """Put `at_input` before every layer that reads units, for one forward pass."""
    gates: Gates = {}
    handles = [
        layer.register_forward_pre_hook(
            lambda _layer, inputs, name=name: (at_input(gates, name, inputs[0]), *inputs[1:])
        )
        for name, layer in evidence.coupling.consumers(evidence.model).items()
    ]
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def _add_by_unit(total_BU: Tensor, value_BC: Tensor, unit_C: Tensor) -> None:
    cut_C = unit_C != PINNED
    total_BU.index_add_(1, unit_C[cut_C], value_BC[:, cut_C].float().cpu())
