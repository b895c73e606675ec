"""The training step: choose instances, forward, backward, update; counted from what ran.

For each mini-batch of m instances (EIF + EMP, arXiv 2007.03213, section II):

    kept    = filter.select(x, y)          before the main network's forward pass
    loss    = mean over kept of CE(main(x_kept), y_kept)
    backward through the error maps that the pruner keeps, then one optimiser step
    filter.learn(losses of the kept)

The batch that trains the network is as small as what was kept; it is not refilled and the learning rate is not
changed (as in the paper), unless the filter asks for a longer or shorter step. Nothing kept means no step. Without
methods this is plain PyTorch SGD, bit for bit.

Shapes: B instances in the mini-batch, K kept, N looked at by the filter.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedge.errors import UserError
from fedge.training.batches import Batches
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.instance_filter.base import InstanceFilter, MiniBatch
from fedge.training.macs import BackwardCost, MacTable, count_macs, evaluating
from fedge.training.quantization import Quantization
from fedge.training.stats import Evaluation, TrainStats

FLOAT_BIT_OPERATIONS = 32 * 32


def train(
    model: nn.Module,
    batches: Batches,
    *,
    optimizer: torch.optim.Optimizer,
    instance_filter: InstanceFilter | None = None,
    error_maps: ErrorMapPruner | None = None,
    quantization: Quantization | None = None,
) -> TrainStats:
    """Train `model` once through `batches` of (x_BCHW, y_B) and say what it cost.

    Each method is optional; a pruner or quantiser that is not entered yet is entered for this call. One call is one
    epoch to a pruner that alternates epochs. An empty `batches` does nothing and costs nothing.
    `model.train()` is called first and not undone: a norm that was set to evaluation mode learns statistics again.

    Raises UserError for a method made for another model, for a quantiser entered without this call's pruner, and for
    products that cannot be counted, pruned or quantised (macs.py, error_map.py, quantization.py).
    """
    _require_methods_of(model, error_maps, quantization)
    model.train()
    total = TrainStats()
    with ExitStack() as stack:
        if error_maps is not None and not error_maps.entered:
            stack.enter_context(error_maps)
        if quantization is not None and not quantization.entered:
            stack.enter_context(quantization if error_maps is None else quantization.over(error_maps))
        pruner = error_maps if quantization is None else quantization.pruner
        step = _Step(model, optimizer, instance_filter, pruner, quantization)
        for x_BCHW, y_B in batches:
            total += step(x_BCHW, y_B)
    if error_maps is not None:
        error_maps.epoch += 1
    return total


def _require_methods_of(
    model: nn.Module, error_maps: ErrorMapPruner | None, quantization: Quantization | None
) -> None:
    """Methods of another model would train this one densely and report a saving."""
    for method in (error_maps, quantization):
        if method is not None and method.model is not model:
            raise UserError(
                f"train: the {type(method).__name__} was made for another model: make one for the model to be trained"
            )
    if quantization is not None and quantization.entered and error_maps not in (None, quantization.pruner):
        raise UserError(
            "train: the quantization was entered without these error maps, which it would not round: "
            "leave it (train enters both), or enter it by quantization.over(error_maps)"
        )


def evaluate(model: nn.Module, batches: Batches, *, classes: Sequence[int] | None = None) -> Evaluation:
    """Judge each prediction in evaluation mode; the model's own modes are put back.

    classes: answers are chosen among these alone (each 0..C-1; every other logit counts as -inf, and so the loss is
    infinite where a label is none of them). Without any class there is no answer, and NaN logits are none either.
    """
    right, loss_sum = [torch.empty(0, dtype=torch.bool)], 0.0
    with evaluating(model), torch.no_grad():
        for x_BCHW, y_B in batches:
            logits_BC = model(x_BCHW)
            if classes is not None:
                logits_BC = _among(classes, logits_BC)
            right.append(right_answers(logits_BC, y_B))
            loss_sum += float(F.cross_entropy(logits_BC, y_B, reduction="sum"))
    right_N = torch.cat(right)
    return Evaluation(right_N=right_N, loss=loss_sum / len(right_N) if len(right_N) else math.nan)


def right_answers(logits_BC: Tensor, y_B: Tensor) -> Tensor:
    """Which rows are answered right [B] bool: by their largest logit, where there is one and none is NaN."""
    best_B, answer_B = logits_BC.max(1)  # NaN where any logit is
    return (answer_B == y_B) & (best_B > -math.inf)


def _among(classes: Sequence[int], logits_BC: Tensor) -> Tensor:
    """-inf for every class but these; a row with a NaN stays without an answer."""
    kept_C = torch.zeros(logits_BC.shape[1], dtype=torch.bool, device=logits_BC.device)
    kept_C[torch.as_tensor(classes, dtype=torch.long)] = True
    return logits_BC.masked_fill(~kept_C & ~logits_BC.isnan(), -math.inf)


@dataclass
class _Step:
    """One mini-batch through the methods: calling it trains and returns that step's stats."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    instance_filter: InstanceFilter | None
    error_maps: ErrorMapPruner | None
    quantization: Quantization | None
    count: Callable[[torch.Size], MacTable] = field(init=False)
    pruner_cost: BackwardCost = field(default_factory=BackwardCost)

    def __post_init__(self) -> None:
        self.count = cache(partial(count_macs, self.model))
        if self.error_maps is not None:
            self.pruner_cost = self.error_maps.cost

    def __call__(self, x_BCHW: Tensor, y_B: Tensor) -> TrainStats:
        table = self.count(x_BCHW.shape[1:])
        if self.instance_filter is None:
            loss = self._update(x_BCHW, y_B, lambda logits_BC: F.cross_entropy(logits_BC, y_B))
            return self._stats(table, seen=len(y_B), kept=len(y_B), loss=loss)
        return self._filtered(MiniBatch(x_BCHW, y_B, self.model), self.instance_filter, table)

    def _filtered(self, batch: MiniBatch, instance_filter: InstanceFilter, table: MacTable) -> TrainStats:
        macs_before = instance_filter.macs
        kept_K, weight_K = instance_filter.select(batch)
        loss, loss_K = 0.0, torch.empty(0)
        if len(kept_K):
            y_K = batch.y_B[kept_K]

            def weighted_loss(logits_KC: Tensor) -> Tensor:
                nonlocal loss_K
                loss_K = F.cross_entropy(logits_KC, y_K, reduction="none")
                return loss_K.mean() if weight_K is None else loss_K @ weight_K / weight_K.sum()

            length = instance_filter.step_length(len(kept_K), len(batch.y_B))
            loss = self._update(batch.x_BCHW[kept_K], y_K, weighted_loss, length)
        instance_filter.learn(batch, kept_K, loss_K.detach())
        return self._stats(
            table,
            seen=len(batch.y_B),
            kept=len(kept_K),
            looked_at=batch.looked_at,
            macs_network=instance_filter.macs - macs_before,
            loss=loss,
        )

    def _update(
        self, x_KCHW: Tensor, y_K: Tensor, loss_of: Callable[[Tensor], Tensor], length: float = 1.0
    ) -> float:
        self.optimizer.zero_grad()
        loss = loss_of(self._logits(x_KCHW))
        (length * loss).backward()
        self.optimizer.step()
        return loss.item()

    def _logits(self, x_KCHW: Tensor) -> Tensor:
        """A single instance on a map of one pixel has no spread: its norm then uses the running statistics."""
        if len(x_KCHW) > 1:
            return self.model(x_KCHW)
        with ExitStack() as stack:
            for norm in self.model.modules():
                if isinstance(norm, _BatchNorm):
                    stack.callback(norm.train, norm.training)
                    stack.callback(norm.register_forward_pre_hook(_rest_without_spread).remove)
            return self.model(x_KCHW)

    def _stats(
        self,
        table: MacTable,
        *,
        seen: int,
        kept: int,
        loss: float,
        looked_at: int = 0,
        macs_network: int = 0,
    ) -> TrainStats:
        forward, looks = kept * table.forward, looked_at * table.forward
        backward = self._backward_cost(table, kept)
        if self.quantization is None:
            bits = FLOAT_BIT_OPERATIONS * (forward + looks + backward.macs)
        else:
            bits = self.quantization.bit_operations(forward + looks, backward)
        return TrainStats(
            samples_seen=seen,
            samples_kept=kept,
            samples_looked_at=looked_at,
            steps=int(kept > 0),
            macs_forward=forward,
            macs_error_propagation=backward.error_propagation,
            macs_weight_gradient=backward.weight_gradient,
            macs_filter=macs_network + looks,
            macs_dense=seen * table.training,
            selection_adds=backward.selection_adds,
            bit_operations=bits + FLOAT_BIT_OPERATIONS * macs_network,
            loss_sum=loss * kept,
        )

    def _backward_cost(self, table: MacTable, kept: int) -> BackwardCost:
        """Of this step: as the pruner counted it, or dense."""
        if self.error_maps is None:
            return BackwardCost(kept * table.error_propagation, kept * table.weight_gradient)
        before, self.pruner_cost = self.pruner_cost, self.error_maps.cost
        return self.pruner_cost - before


def _rest_without_spread(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Before a norm's forward: evaluation mode where there is one value per channel, which PyTorch refuses."""
    if inputs[0].numel() == inputs[0].shape[1]:
        norm.eval()
