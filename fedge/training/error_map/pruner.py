"""Error-map pruning (EMP): the backward pass multiplies only the error maps worth it.

Wu, Wang, Shi, Hu, arXiv 2007.03213, IEEE TCAD 39(11), section IV (their V in print). Per mini-batch and convolution:

    S_j     = score of output channel j                                  scores.py, (11), (14)
    beta    = 1 for the keep * n channels of highest S_j, else 0         n channels, the same for all instances
    delta_in = sum_j rot(W_j) * (delta_j beta_j)                         (8), (9)
    g_(w,j)  = a * (delta_j beta_j)                                      (12), (13)

Forward pass and weights are untouched; a pruned convolution's backward costs `keep` times its dense one, linear layers
and the convolutions left dense cost what they did. backward.py does it.

What we changed, and why:
- A block's batch norm and ReLU are pruned with its convolution: they work channel by channel, so an error map that is
  dropped need not pass through them. Channels are ranked at the block's end, by ||delta_j|| behind the ReLU times the
  norm's 1 / sigma_j, by which its backward multiplies the map. It multiplies by gamma_j too; that is left out: a
  channel whose gamma is near zero would never be kept and so never grow, and norms that start at zero would stay there.
- Options the paper leaves open: the first layers dense, a dense warm-up, alternating dense and pruned calls of `train`
  (ssProp, arXiv 2408.12561), keep per layer.
- Other kinds, which prune without bias: single numbers (Ye et al., element.py), pixels, maps of instances (units.py).

Attached to a model by attach.py.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, Self, TypeGuard

import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.counting.dry_run import in_dry_run, stands_aside
from fedge.training.error_map.attach import BlockPasses, padded
from fedge.training.error_map.backward import PrunedLayer, RoundedLinear, Rounding, apply
from fedge.training.error_map.blocks import computes_as
from fedge.training.error_map.channels import CHANNELS_LAST
from fedge.training.error_map.gathered import pays
from fedge.training.error_map.sampled import SampledConv, SampledLayer, Sampler
from fedge.training.error_map.scores import SCORES, Score, keep_best, kept_channels
from fedge.training.macs import COUNTED, BackwardCost, Counted, count_macs, has_plain_layers, kernel_macs
from fedge.training.torch_device import brought_to
from fedge.training.torch_private import FakeTensor

ScoreName = Literal["error", "paper", "product", "random"]
Kind = Literal["channel", "element", "pixel", "map"]
Threshold = Literal["sampled", "lognormal"]
KINDS = ("channel", "element", "pixel", "map")
KEEP = 0.25


class ErrorMapPruner(BlockPasses):
    """Context manager: inside it, `model`'s backward passes keep the share `keep` of every Conv2d's error maps.

    keep: 0 < keep <= 1, or {layer name: keep} (layers not named are dense). 1 leaves PyTorch's own backward in place.
        All else (other convolutions, Conv2d subclasses with a forward of their own, attention, recurrence) is left
        dense, and counted. None: 0.25.
    score: of channels: "error", "paper", "product", "random", or a function like them (scores.py).
    kind: what is kept or dropped as one: a "channel" for all instances (EMP), or, at random and without bias, a single
        number ("element"), a "pixel" or a "map" of one instance. keep is the share of these that stays.
    threshold: of "element", how tau is solved for `keep`: "sampled" or "lognormal" (threshold.py).
    target: of "element", in place of keep: the paper's p, 0 <= p < 1, the share of numbers below tau. Of those many are
        raised to tau: at p = 0.9 46 % of normal numbers stay, and fewer of heavier tails. 0 prunes nothing.
    dense_first: how many of the first Conv2d stay dense; 0 prunes all.
    warmup_steps: forward passes in training before pruning begins.
    alternate: even epochs dense, odd ones pruned; `epoch` is counted up by `train` and may be set.
    seed: of the score "random".

    `.cost` counts what backward passes have done while attached, all that is dense included; `.kept` holds the channels
    of the latest backward pass by layer name, `.density` the share of numbers that stayed, of the other kinds. Pruned
    passes refuse `torch.autocast` (UserError).
    """

    def __init__(
        self,
        model: nn.Module,
        keep: float | Mapping[str, float] | None = None,
        score: ScoreName | Score = "error",
        *,
        kind: Kind = "channel",
        threshold: Threshold = "sampled",
        target: float | None = None,
        dense_first: int = 0,
        warmup_steps: int = 0,
        alternate: bool = False,
        seed: int = 0,
    ) -> None:
        if not callable(score) and score not in SCORES:
            raise UserError(f"error maps: score is '{score}'; take one of {', '.join(SCORES)}, or a function")
        _require_fitting(kind, keep, score, threshold, target)
        _require_least("dense_first", dense_first, 0)
        _require_least("warmup_steps", warmup_steps, 0)
        super().__init__(model)
        self.kind = kind
        share = (KEEP if keep is None else keep) if target is None else 1 - target
        self.keep = _keep_by_layer(model, share, dense_first)
        self.score = score
        self.warmup_steps = warmup_steps
        self.alternate = alternate
        self.epoch = 0
        self.steps = 0
        self.roundings: tuple[Rounding, Rounding] | None = None
        self.kept: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(seed)
        how = threshold if target is None else "normal"
        self._sampler = None if kind == "channel" else Sampler(kind, how, self.generator)
        self.cost = BackwardCost()
        self._own = {name for name, layer in model.named_modules() if _is_counted_here(layer)}
        self._only_plain_layers = has_plain_layers(model) and all(
            _is_counted_here(layer) for layer in model.modules() if isinstance(layer, COUNTED)
        )
        self._others: dict[Sequence[int], BackwardCost] = {}

    @property
    def pruning(self) -> bool:
        """Whether a forward pass now will be followed by a pruned backward."""
        resting = self.alternate and self.epoch % 2 == 0
        return self.steps >= self.warmup_steps and not resting

    @property
    def density(self) -> dict[str, float]:
        """Of the latest backward pass, by layer: the share of numbers that stayed; of `channel`, nothing."""
        return self._sampler.density if self._sampler else {}

    def __enter__(self) -> Self:
        if self.entered:
            raise UserError("error maps: this pruner is attached already; leave it before entering it again")
        super().__enter__()
        self._others.clear()
        self._attached.append(self.model.register_forward_hook(self._count_step).remove)
        return self

    def _forward_of(self, name: str, layer: nn.Module) -> Callable[[Tensor], Tensor] | None:
        """What takes the place of the layer's forward; None leaves it."""
        forward = super()._forward_of(name, layer)
        if forward is None and _is_counted_here(layer):
            forward = partial(self._dense, layer, layer.forward)
        if forward is None:
            return None
        if "forward" in layer.__dict__:
            raise UserError(
                f"error maps: the forward of layer '{name}' is replaced already, by another pruner or a quantization "
                "entered before: leave that, and let train enter both, or quantization.over(pruner)"
            )
        return forward

    @stands_aside
    def _count_step(self, model: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """After a forward pass: one step more, and its dense rest (attention, recurrence ...) to be counted."""
        if in_dry_run() or not torch.is_grad_enabled():
            return
        self.steps += model.training
        if self._only_plain_layers:
            return
        if not (len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)):
            raise UserError(
                "error maps: a network with other layers than convolutions, linear layers and norms is counted where "
                "it takes one tensor and returns one: give it that form"
            )
        if output.requires_grad and not isinstance(output, FakeTensor):
            whole = None if inputs[0].is_floating_point() else inputs[0].dtype  # word numbers, say
            cost = self._cost_of(inputs[0].shape, whole)
            if cost.macs:
                output.register_hook(lambda _: self._record(cost))

    def cost_outside(self, shape: Sequence[int]) -> BackwardCost:
        """What a backward pass on a batch of that shape makes outside of layers, where `.cost` does not hold it: in a
        network all of whose layers are counted one by one."""
        return self._cost_of(shape) if self._only_plain_layers else BackwardCost()

    def _cost_of(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> BackwardCost:
        """Of one dense backward pass through all that is not counted layer by layer here."""
        shape = tuple(shape)
        if shape not in self._others:
            table = count_macs(self.model, shape[1:], None, dtype)
            if not table.per_instance:
                table = count_macs(self.model, shape[1:], shape[0], dtype)
            others = [layer for layer in table.layers if layer.name not in self._own]
            self._others[shape] = BackwardCost(
                shape[0] * sum(layer.error_propagation for layer in others),
                shape[0] * sum(layer.weight_gradient for layer in others),
            )
        return self._others[shape]

    def _record(self, cost: BackwardCost) -> None:
        self.cost += cost

    def _block_passes(self, name: str, layer: nn.Conv2d, x_BIHW: Tensor) -> tuple[Tensor, PrunedLayer] | None:
        return None if self.roundings or self._sampler else self._passes(name, layer, x_BIHW)

    def _conv(self, name: str, layer: nn.Conv2d, dense: Callable[[Tensor], Tensor], x_BIHW: Tensor) -> Tensor:
        keep = self._keep(name)
        if self._sampler is None or keep == 1 or in_dry_run() or not _is_trained(x_BIHW):
            return super()._conv(name, layer, dense, x_BIHW)
        _refuse_autocast(x_BIHW)
        x_BIHW, geometry = padded(layer, x_BIHW)
        x_BIHW = x_BIHW.contiguous(memory_format=CHANNELS_LAST)
        gather = self.kind == "pixel" and self.roundings is None and pays(keep, layer.weight, geometry)
        prune = partial(self._sampler, name, keep, gather=gather)
        how = SampledLayer(geometry, prune, self._record, self.roundings)
        return apply(SampledConv, x_BIHW, layer.weight, layer.bias, how)

    def _keep(self, name: str) -> float:
        """Of a layer, now."""
        return self.keep.get(name, 1.0) if self.pruning else 1.0

    def _passes(self, name: str, layer: nn.Conv2d, x_BIHW: Tensor) -> tuple[Tensor, PrunedLayer] | None:
        keep = self._keep(name)
        plain = keep == 1 and self.roundings is None
        if plain or not _is_trained(x_BIHW):
            return None
        _refuse_autocast(x_BIHW)
        x_BIHW, geometry = padded(layer, x_BIHW)
        groups = 1 if geometry.depthwise else layer.groups
        kept = kept_channels(layer.out_channels, keep, groups)
        best = None if keep == 1 else partial(self._rank, name, layer, kept, groups)
        x_BIHW = x_BIHW.contiguous(memory_format=CHANNELS_LAST)
        return x_BIHW, PrunedLayer(geometry, best, self._record, self.roundings)

    def _rank(self, name: str, layer: nn.Conv2d, kept: int, groups: int, error_norm_C: Tensor) -> Tensor:
        rank = self.score if callable(self.score) else SCORES[self.score]
        score_C = brought_to(rank(layer.weight.detach(), error_norm_C, self.generator), error_norm_C.device)
        self.kept[name] = keep_best(score_C, kept, groups)
        return self.kept[name]

    def _dense(self, layer: Counted, dense: Callable[..., Tensor], x: Tensor) -> Tensor:
        """PyTorch's own layer (or its rounded one), its backward counted when it runs."""
        if in_dry_run():
            return dense(x)
        if isinstance(layer, nn.Linear) and self.roundings is not None:
            _refuse_autocast(x)
            out = apply(RoundedLinear, x, layer.weight, layer.bias, self.roundings)
        else:
            out = dense(x)
        if out.requires_grad:
            macs = out.numel() * kernel_macs(layer.weight)
            cost = BackwardCost(macs * x.requires_grad, macs * layer.weight.requires_grad)
            out.register_hook(lambda _: self._record(cost))
        return out


def _is_counted_here(layer: nn.Module) -> TypeGuard[Counted]:
    """Whether the layer's backward costs what its output says: it is PyTorch's own."""
    return any(computes_as(layer, kind) for kind in COUNTED)


def _is_trained(x_BIHW: Tensor) -> bool:
    """Whether a backward pass may follow, of a batch of maps."""
    return torch.is_grad_enabled() and x_BIHW.dim() == 4


def _refuse_autocast(x: Tensor) -> None:
    if torch.is_autocast_enabled(x.device.type):
        raise UserError(
            "error maps: torch.autocast is on; pruned and quantised backward passes run in the dtype of the parameters "
            "only: train outside autocast, or with keep = 1 and without quantization"
        )


def _require_fitting(
    kind: Kind,
    keep: float | Mapping[str, float] | None,
    score: ScoreName | Score,
    threshold: Threshold,
    target: float | None,
) -> None:
    """UserError for options that say nothing together."""
    if kind not in KINDS:
        raise UserError(f"error maps: kind is '{kind}'; take one of {', '.join(KINDS)}")
    if kind != "channel" and score != "error":
        raise UserError(
            f"error maps: score ranks channels, and kind is '{kind}', drawn at random: leave score out"
        )
    if kind != "element" and (threshold != "sampled" or target is not None):
        raise UserError(
            f"error maps: threshold and target are of kind 'element', and kind is '{kind}': leave them out"
        )
    if threshold not in ("sampled", "lognormal"):
        raise UserError(f"error maps: threshold is '{threshold}'; take sampled or lognormal")
    if target is None:
        return
    if keep not in (None, 1) or threshold != "sampled":
        raise UserError(
            "error maps: target sets the threshold by itself: leave keep and threshold out, or target"
        )
    if not 0 <= target < 1:
        raise UserError(
            f"error maps: target is {target}; it is the share of numbers below the threshold, 0 <= target < 1"
        )


def _require_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"error maps: {name} is {value}; take {least} or more")


def _keep_by_layer(model: nn.Module, keep: float | Mapping[str, float], dense_first: int) -> dict[str, float]:
    convolutions = {
        name: computes_as(layer, nn.Conv2d)
        for name, layer in model.named_modules()
        if isinstance(layer, COUNTED) and not isinstance(layer, nn.Linear)
    }
    names = [name for name, prunable in convolutions.items() if prunable]
    by_layer = dict(keep) if isinstance(keep, Mapping) else dict.fromkeys(convolutions, keep)
    for name, share in by_layer.items():
        if not 0 < share <= 1:
            raise UserError(
                f"error maps: keep is {share} for '{name}'; it is the share kept, above 0 and at most 1 "
                "(1: dense)"
            )
        if name not in convolutions or (share < 1 and name not in names):
            raise UserError(
                f"error maps: '{name}' is no Conv2d of this model with PyTorch's own forward, and others are not "
                f"pruned: take keep = 1, or {{name: keep}} with names out of {names}"
            )
    return by_layer | dict.fromkeys(names[:dense_first], 1.0)
