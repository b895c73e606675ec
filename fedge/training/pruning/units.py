"""Find the units of a network: trace it, and try what a trace cannot tell.

A residual sum ties channel i of every branch; a batch norm goes with its convolution; a grouped convolution keeps
its groups alike; the channels of the network's output never go. From what a pass ties we close the relation:

    slot   = (layer, output or input, channel index)
    unit   = connected component of slots under "if this goes, that must go"
    pinned = a unit that holds an output of the network, or enters an operation that mixes channels (GroupNorm, ...)

The idea of a dependency graph of layers is DepGraph's (Fang et al., CVPR 2023); ours is one of channels, followed
element by element, so that chunks, shuffles, padded shortcuts and reshapes are no special cases.
"""

import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.outputs import one_tensor
from fedge.training.pruning.coupling import PINNED, Coupling, Kept
from fedge.training.pruning.cut import Cut
from fedge.training.pruning.layers import norms_by_batch
from fedge.training.pruning.ledger import Ledger
from fedge.training.pruning.spare import spare_copy
from fedge.training.pruning.tracing.labels import distinct
from fedge.training.pruning.tracing.trace import Trace
from fedge.training.torch_device import generators_kept

__all__ = ["PINNED", "Coupling", "find_coupling"]

Join = tuple[str, Tensor]  # an operation, and the slots that it ties

RELATIVE_ERROR = 1e-3  # between cut and zeroed network; a wrong cut is off by its outputs' own size


def find_coupling(model: nn.Module, example_input: Tensor, *, joins: str = "hoped") -> Coupling:
    """Trace `model` with `example_input` [B, C, ...] and return its units.

    `model` must be a copy that the caller can spare: tracing leaves it in evaluation mode. A join that cuts well if its
    code goes by the widths that it meets is `hoped` to, `tried` on copies (slow), or `kept` whole. UserError if no
    channel could be cut.
    """
    trace = Trace(model)
    differs = _run_both_modes(trace, model, example_input)

    def closed(whole: list[Join]) -> Coupling:
        kept = dict(trace.kept)
        for operation, slots in whole:
            for layer in trace.slots.layers_of(slots):
                kept.setdefault(layer, operation)
        reasons = tuple(Kept(name, kept[name]) for name in trace.slots.shapes if name in kept)
        return trace.slots.close([slots for _, slots in whole], reasons, trains_otherwise=differs)

    assumed = list(trace.assumed.values())
    coupling = closed(assumed if joins == "kept" else [])
    if coupling.units and assumed and joins == "tried":
        coupling = closed(_wrong_joins(model, coupling, assumed, example_input))
    if not coupling.units:
        raise UserError(
            "the network has no channel that can be cut: every one reaches its output or a layer that mixes "
            f"channels (GroupNorm, LayerNorm){coupling.kept_in_words()}; use batch norm, or leave pruning out"
        )
    return coupling


def _run_both_modes(trace: Trace, model: nn.Module, example_input: Tensor) -> bool:
    """A pass as in evaluation, and one as in training where that makes other calls; True if it runs other layers.

    Statistics stay as they were.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    two_BCHW = torch.cat([example_input, example_input]) if len(example_input) == 1 else example_input
    with generators_kept(example_input.device):
        model.eval()
        one_tensor(trace.run(enough(model, example_input)))
        model.train()
        if alike := trace.runs_alike(two_BCHW.clone()):
            trace.runs.append(trace.runs[-1])
        else:
            trace.run(two_BCHW.clone())
    model.eval()
    for buffer, before in buffers:
        buffer.copy_(before)
    trace.pin_idle_layers()
    evaluation, training = ([name for name in run if isinstance(name, str)] for run in trace.runs)
    return not alike and evaluation != training


def enough(model: nn.Module, x_BCHW: Tensor) -> Tensor:
    """`x_BCHW`, twice where it is one instance and a norm without running statistics needs company."""
    alone = len(x_BCHW) == 1 and norms_by_batch(model)
    return torch.cat([x_BCHW, x_BCHW]) if alone else x_BCHW.clone()


class _Trials:
    """Cuts tried on copies of the network, of a third of the units of some joins at a time."""

    MOST = 24

    def __init__(self, model: nn.Module, example_input: Tensor) -> None:
        self.model = model
        self.left = self.MOST
        self.generator = torch.Generator().manual_seed(0)
        self.x_BCHW = random_like(enough(model, example_input), self.generator)

    def holds(self, coupling: Coupling, joins: list[Join]) -> bool:
        """Whether the network without some units of the joins computes what it does with their channels zeroed."""
        self.left -= 1
        cut = Cut(coupling, self._units(coupling, joins))
        return cut.error(spare_copy(self.model), self.x_BCHW) <= RELATIVE_ERROR

    def _units(self, coupling: Coupling, joins: list[Join]) -> Tensor:
        sides = [coupling.unit_of_output, coupling.unit_of_input]
        number = torch.cat([torch.tensor([PINNED]), *(side[name] for name in sides[0] for side in sides)])
        removed_U = torch.zeros(coupling.units, dtype=torch.bool)
        ledger = Ledger(self.model, coupling)
        for _, slots in joins:
            units = distinct(number[slots])
            units = units[units != PINNED]
            chosen = units[torch.randperm(len(units), generator=self.generator)][: -(-len(units) // 3)]
            for unit in chosen.tolist():
                if not removed_U[unit] and ledger.leaves(unit, {}):
                    ledger.cut(unit, 0)
                    removed_U[unit] = True
        return removed_U


def _wrong_joins(
    model: nn.Module, coupling: Coupling, joins: list[Join], example_input: Tensor
) -> list[Join]:
    """The joins that do not go by the widths that they meet, by halving what fails."""
    trials = _Trials(model, example_input)
    wrong: list[Join] = []
    waiting = [joins]
    while waiting:
        some = waiting.pop()
        if trials.left <= 0:
            wrong += some
        elif not trials.holds(coupling, some):
            half = len(some) // 2
            if half:
                waiting += [some[half:], some[:half]]
            else:
                wrong += some
    return wrong


def random_like(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers of the example's shape; the example itself where it is of whole numbers (tokens)."""
    if not x_BCHW.is_floating_point():
        return x_BCHW
    return torch.randn(x_BCHW.shape, generator=generator).to(x_BCHW)
