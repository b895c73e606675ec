"""Structured pruning of any CNN to a share of its parameters.

Rajagopal and Bouganis, "Now that I can see, I can improve" (ADaPT), EDLCV at CVPR 2020, arXiv 2006.08554, and the
authors' public code for what the paper leaves open. One shot, one global list, lowest score first:

    s_1 <= s_2 <= ...                    scores of the network's units (`criteria.py`)
    cut units 1, 2, ... until  removed / parameters = p        p = `level`
    unless a layer would keep fewer filters than its floor:
        2 in every layer;  in residual sums of width n:  ceil(n (1 - p)) if p >= 1/2 else ceil(n p)

What we changed: coupled channels are found by tracing, not declared by decorators; `accounting="exact"` counts
every parameter that really goes (norms, biases, shortcuts, the classifier's columns), where ADaPT's own estimate,
`accounting="adapt"`, drifts by up to 3.4 percentage points; the cut stops at the unit that lands nearest p, and
where one that costs too much would stop it further than `SHORTFALL` from p, cheaper ones behind it are tried; the
cut is checked against the network with the same channels zeroed before the caller's network is touched.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from fedge.errors import FedgeError, UserError, is_out_of_memory
from fedge.seeding import derive_seed
from fedge.training.batches import Batches
from fedge.training.pruning.coupling import PINNED, Coupling
from fedge.training.pruning.criteria import CRITERIA, Criterion, Evidence
from fedge.training.pruning.cut import Cut
from fedge.training.pruning.ledger import Ledger
from fedge.training.pruning.regrow import KeptChannels
from fedge.training.pruning.spare import spare_copy
from fedge.training.pruning.topology import Topology
from fedge.training.pruning.units import RELATIVE_ERROR, enough, find_coupling, random_like
from fedge.training.task import Classes, Task
from fedge.training.torch_device import CPU, BroughtTo, brought_to, device_of

LEAST_FILTERS = 2
MOST_BLAMED = 32  # layers tried for a refusal's sake
SHORTFALL = 0.005  # of the parameters: near enough to the level to stop before a unit that costs too much


class LevelOutOfReachError(UserError):
    """The floors stop the cut short of the level; the message says at what share."""


def prune(
    model: nn.Module,
    level: float,
    *,
    example_input: Tensor,
    criterion: str | Criterion | None = None,
    accounting: str = "exact",
    round_to: int = 1,
    batches: Batches | None = None,
    seed: int = 0,
    task: Task = Classes(),  # noqa: B008 - it has no state
) -> Topology:
    """Cut `level` of the parameters of `model`, in place, and return the record of what is left.

    `level` is a share, 0 <= level < 1; 0 leaves the network as it is. `example_input` [B, C, H, W] is only traced;
    its values do not matter. `criterion` is a name of `CRITERIA` or a function like them; those that look at data
    go through `batches` of (x, y) once. Left out, it is 'taylor' where there are batches and the paper's 'l1' where
    there are none (docs/methods/pruning.md). `accounting="exact"` meets the level as closely as units allow when
    tried once each, by score; a level below half of the cheapest unit's share cuts nothing. `round_to` leaves widths in
    multiples of it, which processors like (1: any width); where a whole step would overshoot, a part of it is taken.
    `task` says what a sample's loss is, for criteria that go by it (left out: of a class per sample).

    The parameters are new objects: make a new optimizer. Training mode and `requires_grad` stay as they were.
    With the network untouched, LevelOutOfReachError if a floor stops the cut short of the level, and UserError if
    the network has nothing to cut, cannot be traced, has diverged to nan, or shares parameters between layers.
    """
    if criterion is None:
        criterion = "l1" if batches is None else "taylor"
    _require_arguments(level, criterion, accounting, round_to)
    kept: dict[str, KeptChannels] = {}
    if level > 0:
        _require_cuttable(model)
        rank = CRITERIA[criterion] if isinstance(criterion, str) else criterion
        if isinstance(batches, Iterator):
            batches = list(batches)  # looked at again where a join has to be kept
        example_input = brought_to(example_input, device_of(model))
        with torch.inference_mode(False):
            how = _How(level, rank, accounting, round_to, batches, seed, task)
            cut = _find_cut(model, example_input, how)
            kept = cut.kept(model)
            cut.apply(model)
    return Topology.of(model, tuple(example_input.shape[1:]), kept)


@dataclass(frozen=True)
class _How:
    level: float
    rank: Criterion
    accounting: str
    round_to: int
    batches: Batches | None
    seed: int
    task: Task


def _find_cut(model: nn.Module, example_input: Tensor, how: _How) -> Cut:
    """The cut, tried on a copy: hoping that joins go by the widths that they meet, then without those that do not."""
    batches = None if how.batches is None else BroughtTo(how.batches, device_of(model))
    for joins in ("hoped", "tried", "kept"):
        generator = torch.Generator().manual_seed(derive_seed(how.seed, "prune"))
        spare = spare_copy(model).requires_grad_(True).eval()
        with _explained("the network cannot be traced for pruning", "check that example_input fits it"):
            coupling = find_coupling(spare, example_input, joins=joins)
        with _explained("the pruning criterion failed", "check that it and the batches fit the network"):
            score_U = brought_to(how.rank(Evidence(spare, coupling, batches, generator, how.task)), CPU)
        _require_scores(score_U, coupling)
        try:
            removed_U = choose_units(
                score_U, how.level, Ledger(spare, coupling, how.accounting), how.round_to
            )
        except LevelOutOfReachError as reached:
            raise LevelOutOfReachError(f"{reached}{coupling.kept_in_words()}") from None
        cut = Cut(coupling, removed_U)
        x_BCHW = random_like(enough(spare, example_input), generator)
        error = cut.error(spare, x_BCHW)
        if error <= RELATIVE_ERROR:
            return cut
    raise _misunderstood(model, cut, x_BCHW, error)


def _misunderstood(model: nn.Module, cut: Cut, x_BCHW: Tensor, error: float) -> UserError:
    """The refusal, with the first layer whose filters alone cannot go."""
    named = ""
    for name in list(cut.coupling.producers(model))[:MOST_BLAMED]:
        unit_O = cut.coupling.unit_of_output[name]
        alone_U = torch.zeros_like(cut.removed_U)
        alone_U[unit_O[unit_O != PINNED]] = True
        alone = Cut(cut.coupling, alone_U & cut.removed_U)
        named = named or name
        if alone.removed_U.any() and not alone.error(spare_copy(model).eval(), x_BCHW) <= RELATIVE_ERROR:
            named = name
            break
    gap = (
        ""
        if math.isinf(error)
        else f" by {error:.1e} of its output from itself with the same channels zeroed"
    )
    what = "its layers do not fit each other" if math.isinf(error) else "it differs"
    return UserError(
        f"the network joins the channels of layer {named!r} in a way that pruning does not understand: cut, {what}"
        f"{gap}; leave pruning out for it"
    )


def _require_arguments(level: float, criterion: str | Criterion, accounting: str, round_to: int) -> None:
    if not 0 <= level < 1:
        raise UserError(f"pruning level is {level}; it is the share of parameters to remove, 0 <= level < 1")
    if isinstance(criterion, str) and criterion not in CRITERIA:
        raise UserError(f"there is no pruning criterion {criterion!r}; there are {', '.join(CRITERIA)}")
    if accounting not in ("exact", "adapt"):
        raise UserError(f"there is no accounting {accounting!r}; there are exact, adapt")
    if round_to < 1:
        raise UserError(
            f"pruning cannot round widths to {round_to}; take 1 (any width) or more, such as 8 or 16"
        )


def _require_cuttable(model: nn.Module) -> None:
    """Its own forwards, finite, or the ranking means nothing, and every parameter in one layer, so that it can go."""
    for layer, module in model.named_modules():
        if "forward" in vars(module):
            raise UserError(
                f"layer {layer!r} runs a forward that was put in place of its own, as an ErrorMapPruner does while it "
                "is attached: prune outside of its `with` block"
            )
        if any(isinstance(p, UninitializedParameter) for p in module.parameters(recurse=False)):
            raise UserError(
                f"layer {layer!r} has no weights yet (it is lazy): run the network once before pruning"
            )
    tensors = [*model.named_parameters(), *model.named_buffers()]
    if broken := [name for name, tensor in tensors if not bool(tensor.isfinite().all())]:
        raise UserError(
            f"the network has diverged: there is nan or infinity in {', '.join(broken[:3])}; lower the learning "
            "rate, or look for nan in the data, and prune a network that trains"
        )
    owner: dict[nn.Parameter, str] = {}
    for layer, module in model.named_modules():
        for name, parameter in module.named_parameters(layer, recurse=False):
            if owner.setdefault(parameter, name) != name:
                raise UserError(
                    f"{owner[parameter]!r} and {name!r} are one parameter, and cut they would be two: "
                    "give each layer its own, or leave pruning out"
                )


@contextmanager
def _explained(what: str, advice: str) -> Iterator[None]:
    """Tracers and criteria meet networks nobody foresaw; whatever they say is for the user, in one line."""
    try:
        yield
    except FedgeError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise  # no fault of the network
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{what} ({reason}): {advice}") from error


def _require_scores(score_U: Tensor, coupling: Coupling) -> None:
    if score_U.shape != (coupling.units,) or bool(score_U.isnan().any()):
        raise UserError(
            f"the pruning criterion gave scores of shape {list(score_U.shape)} with {int(score_U.isnan().sum())} "
            f"nan among them; [{coupling.units}] numbers are needed: look for nan in the data"
        )


def choose_units(score_U: Tensor, level: float, ledger: Ledger, round_to: int = 1) -> Tensor:
    """The units to cut, bool [units]: the stop rule and the floors of the formula above. `ledger` books them."""
    removed_U = torch.zeros(len(score_U), dtype=torch.bool)
    floors = _floors(level, ledger)
    target, near = level * ledger.total, SHORTFALL * ledger.total
    floors_alone = True  # whether nothing but floors keeps the cut from the level
    for step in _steps(score_U, ledger, round_to):
        step = [unit for unit in step if not removed_U[unit]]
        after, missing = ledger.cut_together(step, floors), target - ledger.removed
        overshoots = False
        while after and after.removed - target > (missing if len(step) == 1 else near):
            # by more than is missing now, or than a part of the step would
            overshoots, floors_alone = True, False
            step.pop()
            after = ledger.cut_together(step, floors)
        if after:
            ledger.book(after)
            removed_U[step] = True
        elif overshoots and missing <= near:
            break  # else a cheaper one may land nearer
    if floors_alone and target - ledger.removed > near:
        raise LevelOutOfReachError(
            f"pruning level {level:g} cannot be reached: the floors of {LEAST_FILTERS} filters per layer and of "
            f"the residual sums stop it at {ledger.removed / ledger.total:.3f}; lower the level"
        )
    return removed_U


def _steps(score_U: Tensor, ledger: Ledger, round_to: int) -> Iterator[list[int]]:
    """Units by ascending score, never those scored infinity, in steps to multiples of `round_to`: of each family, first
    as many as its width is above a multiple, then `round_to` at a time, each waiting for the others. At last one by
    one, should that not be enough.
    """
    order = [unit for unit in torch.argsort(score_U, stable=True).tolist() if score_U[unit] < math.inf]
    if round_to > 1:
        width = Counter(map(ledger.family, range(len(score_U))))
        waiting: dict[frozenset[tuple[str, int]], list[int]] = defaultdict(list)
        for unit in order:
            family = ledger.family(unit)
            waiting[family].append(unit)
            if len(waiting[family]) == (width[family] % round_to or round_to):
                width[family] -= len(waiting[family])
                yield waiting.pop(family)
    for unit in order:
        yield [unit]


def _floors(level: float, ledger: Ledger) -> dict[str, int]:
    """Least filters per layer."""
    share = 1 - level if level >= 0.5 else level
    return {
        name: max(min(LEAST_FILTERS, filters), math.ceil(filters * share) if joined else 0)
        for name, (filters, joined) in ledger.filters.items()
    }
