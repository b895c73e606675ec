"""What a channel is worth: the rankings that pruning can go by, behind one small protocol.

A criterion gives every unit of a `Coupling` a score; the lowest are cut first. Scores of one call are compared
over the whole network, so they must mean the same in every layer.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from fedge.catalog import names
from fedge.catalog.named import Named
from fedge.errors import UserError
from fedge.training.batches import Batches
from fedge.training.macs import MacTable
from fedge.training.pruning.coupling import PINNED, Coupling
from fedge.training.pruning.layers import filters_of, norms_by_batch
from fedge.training.task import Classes, Task

AT_ONCE = 8  # samples, so that ranking takes less memory than a training step; scores do not depend on it
PROJECTION_NAMES = frozenset({"shortcut", "downsample"})  # ADaPT ranks no projection on a shortcut


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at. `model` is a spare copy in evaluation mode; `batches` are the client's own.

    task: says what a sample's loss is.
    """

    model: nn.Module
    coupling: Coupling
    batches: Batches | None
    generator: torch.Generator
    task: Task = Classes()  # noqa: RUF009 - it has no state

    def data(self, criterion: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The client's batches of (x, y), `AT_ONCE` samples at a time; UserError without any."""
        held: tuple[Tensor, Tensor] | None = (
            None  # a norm over the batch must not meet the last instance alone
        )
        for x_BCHW, y_B in self.batches or ():
            for x, y in zip(torch.split(x_BCHW, AT_ONCE), torch.split(y_B, AT_ONCE), strict=True):
                if held and len(x) == 1 and norms_by_batch(self.model):
                    x, y = torch.cat([held[0], x]), torch.cat([held[1], y])
                elif held:
                    yield held
                held = x, y
        if held:
            yield held
        else:
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
    sums and concatenations included (there: gates behind batch norms, and batches instead of samples). A layer that
    runs several times has a gate for each.
    """
    total_U, samples = torch.zeros(evidence.coupling.units), 0
    for x_BCHW, y_B in evidence.data("taylor"):
        slope_BU = torch.zeros(len(y_B), evidence.coupling.units)
        for name, slope_BC in _slopes(evidence, x_BCHW, y_B):
            _add_by_unit(slope_BU, slope_BC, evidence.coupling.unit_of_input[name])
        total_U += slope_BU.square().sum(dim=0)
        samples += len(y_B)
    return total_U / samples


def activation(evidence: Evidence) -> Tensor:
    """Mean absolute activation on the client's data (Molchanov et al., ICLR 2017, section 2.2).

        score(u) = max over layers that read u of  mean over samples, positions |x_c|  /  its l2 norm over c

    The norm over a layer's channels is that paper's, so that layers compare: behind a Flatten too, where each
    position is an input of its own, channels are averaged first. Max, because a unit that any reader sees active is
    in use.
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, axis: int, x_BC: Tensor) -> Tensor:
        size_BC = x_BC.detach().abs().movedim(axis, 1)
        mean_BC = size_BC.flatten(2).mean(2) if size_BC.dim() > 2 else size_BC
        sums[name] = sums.get(name, 0) + mean_BC.sum(dim=0).cpu()
        return x_BC

    for x_BCHW, _ in evidence.data("activation"):
        with evidence.coupling.at_consumers(evidence.model, add), torch.no_grad():
            evidence.model(x_BCHW)
    score_U = torch.zeros(evidence.coupling.units)
    for name, sum_I in sums.items():
        sum_C, unit_C = _channels_of(sum_I, evidence.coupling.unit_of_input[name])
        level_C = sum_C / sum_C.norm().clamp_min(torch.finfo(sum_C.dtype).tiny)
        score_U.scatter_reduce_(0, unit_C[unit_C != PINNED], level_C[unit_C != PINNED].float(), "amax")
    return score_U


def random(evidence: Evidence) -> Tensor:
    """Uniform scores: the floor any criterion must beat (Mittal et al., arXiv 1801.10447)."""
    return torch.rand(evidence.coupling.units, generator=evidence.generator)


CRITERIA: Mapping[str, Criterion] = Named(names.CRITERIA)

Cost = Callable[[MacTable], int]
_COSTS: Mapping[str, Cost] = {
    "l1": lambda table: 0,
    "random": lambda table: 0,
    "activation": lambda table: table.forward,
    "taylor": lambda table: table.forward + table.error_propagation,  # to the gates; no weight's gradient
}


def macs_per_sample(criterion: Criterion, table: MacTable) -> int:
    """What `criterion` costs per sample that it looks at, in multiply-accumulates of a network of that table.

    One of a user's own says it by an attribute, `macs(table)`; one that does not is charged as taylor is.
    """
    known = next((name for name, function in CRITERIA.items() if function is criterion), "taylor")
    cost: Cost = getattr(criterion, "macs", None) or _COSTS[known]
    return int(cost(table))


def _slopes(evidence: Evidence, x_BCHW: Tensor, y_B: Tensor) -> Iterator[tuple[str, Tensor]]:
    """d loss_n / d z [B, C] at the gates of one layer, each time that it runs, with the layer's name."""
    gates: list[tuple[str, Tensor]] = []

    def gate(name: str, axis: int, x_BC: Tensor) -> Tensor:
        shape = [len(x_BC)] + [1] * (x_BC.dim() - 1)  # one per sample and channel, whatever the positions
        shape[axis] = x_BC.shape[axis]
        gates.append((name, x_BC.new_ones(shape).requires_grad_()))
        return x_BC * gates[-1][1]

    with evidence.coupling.at_consumers(evidence.model, gate), torch.enable_grad():
        out_BK = evidence.task.outputs(evidence.model(x_BCHW), len(x_BCHW))
        evidence.task.check_targets(y_B, out_BK)
        loss = evidence.task.total_loss(out_BK, y_B)
        passed = tuple(gates)  # a checkpoint passes its layers again on the way back
        slopes = torch.autograd.grad(loss, [z for _, z in passed])
    for (name, _), slope in zip(passed, slopes, strict=True):
        yield name, slope.flatten(1)


def _channels_of(value_I: Tensor, unit_I: Tensor) -> tuple[Tensor, Tensor]:
    """Values and units of a layer's inputs as those of the channels that they are positions of: means, [channels].

    Inputs in a row that go with one unit are one channel's positions; pinned ones have no unit to tell and stand
    alone. Without a Flatten the two come back as they are.
    """
    starts_I = torch.ones_like(unit_I, dtype=torch.bool)
    starts_I[1:] = (unit_I[1:] != unit_I[:-1]) | (unit_I[1:] == PINNED)
    channel_I = starts_I.cumsum(0) - 1
    sum_C = value_I.new_zeros(int(starts_I.sum())).index_add(0, channel_I, value_I)
    return sum_C / channel_I.bincount(), unit_I[starts_I]


def _add_by_unit(total_BU: Tensor, value_BC: Tensor, unit_C: Tensor) -> None:
    cut_C = unit_C != PINNED
    total_BU.index_add_(1, unit_C[cut_C], value_BC[:, cut_C].float().cpu())
