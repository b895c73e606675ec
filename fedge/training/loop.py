"""The training step: choose instances, forward, backward, update; counted from what ran.

For each mini-batch of m instances (EIF + EMP, arXiv 2007.03213, section II):

    kept    = filter.select(x, y)          before the main network's forward pass
    loss    = mean over kept of the task's loss(main(x_kept), y_kept)        cross-entropy, unless said otherwise
    backward through the error maps that the pruner keeps, then one optimiser step
    filter.learn(losses of the kept)

The batch that trains the network is as small as what was kept; it is not refilled and the learning rate is not
changed (as in the paper), unless the filter asks for a longer or shorter step. Nothing kept means no step. Without
methods this is plain PyTorch SGD, bit for bit.

Shapes: B instances in the mini-batch, K kept, N looked at by the filter.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedge.errors import UserError
from fedge.training.batches import Batches
from fedge.training.error_map.pruner import ErrorMapPruner
from fedge.training.instance_filter.base import InstanceFilter, MiniBatch
from fedge.training.macs import BackwardCost, MacTable, count_forward, count_macs, evaluating
from fedge.training.norms import norms_for_one
from fedge.training.outputs import check_inputs, require_finite_inputs, require_gradient
from fedge.training.quantization import Quantization
from fedge.training.stats import Evaluation, TrainStats
from fedge.training.task import Classes, Task
from fedge.training.torch_device import BroughtTo, brought_to, device_of
from fedge.training.update.optimizers import require_own_parameters
from fedge.training.update.what import training_mode

FLOAT_BIT_OPERATIONS = 32 * 32


def train(
    model: nn.Module,
    batches: Batches,
    *,
    optimizer: torch.optim.Optimizer,
    instance_filter: InstanceFilter | None = None,
    error_maps: ErrorMapPruner | None = None,
    quantization: Quantization | None = None,
    task: Task = Classes(),  # noqa: B008 - it has no state
    told: Callable[[TrainStats], None] | None = None,
) -> TrainStats:
    """Train `model` once through `batches` of (x_BCHW, y_B) and say what it cost.

    task: what is asked of the network and by which loss it learns; left out: a class per sample, cross-entropy.
    Each method is optional; a pruner or quantiser that is not entered yet is entered for this call. One call is one
    epoch to a pruner that alternates epochs. An empty `batches` does nothing and costs nothing. told: is told what each
    mini-batch cost, when it is done.
    The model is put into training mode first and left there, norms of frozen parts into evaluation mode
    (update/what.py): a norm that was set to either by hand is not left there. Mini-batches are brought to where the
    model's parameters are.

    Raises UserError for an optimizer or a method made for another model or for this one before it was cut, for a
    quantiser entered without this call's pruner, for outputs and targets that are not the task's (task.py), and for
    products that cannot be counted or quantised (macs.py, quantization.py).
    """
    require_own_parameters(optimizer, model)
    _require_methods_of(model, error_maps, quantization)
    training_mode(model)
    total = TrainStats()
    with ExitStack() as stack:
        if error_maps is not None and not error_maps.entered:
            stack.enter_context(error_maps)
        if quantization is not None and not quantization.entered:
            stack.enter_context(quantization if error_maps is None else quantization.over(error_maps))
        pruner = error_maps if quantization is None else quantization.pruner
        step = _Step(model, optimizer, instance_filter, pruner, quantization, task)
        for x_BCHW, y_B in BroughtTo(batches, device_of(model)):
            stats = step(x_BCHW, y_B)
            total += stats
            if told is not None:
                told(stats)
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
    attached = error_maps if quantization is None else quantization.pruner or error_maps
    if attached is not None and attached.entered and not attached.is_current:
        raise UserError(
            "train: error maps or a quantization were entered before the model was cut, and are attached to layers "
            "that it no longer has: leave them, and make them after the cut"
        )
    if quantization is not None and quantization.entered and error_maps not in (None, quantization.pruner):
        raise UserError(
            "train: the quantization was entered without these error maps, which it would not round: "
            "leave it (train enters both), or enter it by quantization.over(error_maps)"
        )


def evaluate(
    model: nn.Module,
    batches: Batches,
    *,
    classes: Sequence[int] | None = None,
    task: Task = Classes(),  # noqa: B008 - it has no state
) -> Evaluation:
    """Judge each prediction in evaluation mode; the model's own modes are put back.

    classes: answers are chosen among these alone (each 0..C-1; every other logit counts as -inf, and so the loss is
    infinite where a label is none of them). Without any class there is no answer, and NaN logits are none either.
    Raises UserError for outputs and targets that are not the task's, and for `classes` where it asks for none.
    """
    if classes is not None and task.name != "classes":
        raise UserError(f"evaluate: classes is given, and the task is {task.name!r}: leave it out")
    right, loss_sum = [torch.empty(0, dtype=torch.bool)], 0.0
    errors: list[Tensor] = []
    with evaluating(model), torch.no_grad():
        for x_BCHW, y_B in BroughtTo(batches, device_of(model)):
            check_inputs(x_BCHW, model)
            with norms_for_one(model) if len(x_BCHW) == 1 else nullcontext():
                out_BK = task.outputs(model(x_BCHW), len(x_BCHW))
            task.check_targets(y_B, out_BK)
            if classes is not None:
                out_BK = _among(classes, out_BK)
            right.append(_decisions(task, out_BK, y_B).cpu())
            error_B = task.error(out_BK, y_B)
            errors += [] if error_B is None else [error_B.cpu()]
            loss = float(task.total_loss(out_BK, y_B))
            if math.isnan(loss):
                require_finite_inputs(x_BCHW)
            loss_sum += loss
    right_N = torch.cat(right if len(right) == 1 else right[1:])
    return Evaluation(
        right_N=right_N,
        loss=loss_sum / len(right_N) if len(right_N) else math.nan,
        error_N=torch.cat(errors) if errors else _NO_ERRORS.get(task.name),
    )


_NO_ERRORS = {"numbers": torch.empty(0, dtype=torch.float64)}
"""Of no sample, where a task tells errors."""


def _decisions(task: Task, out_BK: Tensor, y_B: Tensor) -> Tensor:
    """Right or not: a row per sample where it has labels; pixels one by one."""
    right = task.right(out_BK, y_B)
    return right if task.name == "labels" else right.flatten()


def _among(classes: Sequence[int], logits_BC: Tensor) -> Tensor:
    """-inf for every class but these; a row with a NaN stays without an answer."""
    kept_C = torch.zeros(logits_BC.shape[1], dtype=torch.bool, device=logits_BC.device)
    kept_C[torch.as_tensor(classes, dtype=torch.long)] = True
    kept_C = kept_C.view(-1, *[1] * (logits_BC.dim() - 2))
    return logits_BC.masked_fill(~kept_C & ~logits_BC.isnan(), -math.inf)


@dataclass
class _Step:
    """One mini-batch through the methods: calling it trains and returns that step's stats."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    instance_filter: InstanceFilter | None
    error_maps: ErrorMapPruner | None
    quantization: Quantization | None
    task: Task
    tables: dict[Hashable, MacTable] = field(default_factory=dict)
    pruner_cost: BackwardCost = field(default_factory=BackwardCost)

    def __post_init__(self) -> None:
        if self.error_maps is not None:
            self.pruner_cost = self.error_maps.cost

    def __call__(self, x_BCHW: Tensor, y_B: Tensor) -> TrainStats:
        check_inputs(x_BCHW, self.model)
        self.table(x_BCHW, len(x_BCHW))  # what cannot be counted is not trained
        if self.instance_filter is None:
            loss = self._update(x_BCHW, y_B, lambda out_BK: self.task.mean_loss(out_BK, y_B))
            return self._stats(x_BCHW, kept=len(y_B), loss=loss)
        return self._filtered(MiniBatch(x_BCHW, y_B, self.model, self.task), self.instance_filter)

    def _filtered(self, batch: MiniBatch, instance_filter: InstanceFilter) -> TrainStats:
        macs_before = instance_filter.macs
        kept_K, weight_K = instance_filter.select(batch)
        weight_K = brought_to(weight_K, batch.x_BCHW.device)
        loss, loss_K = 0.0, torch.empty(0)
        if len(kept_K):
            y_K = batch.y_B[kept_K]

            def weighted_loss(out_KC: Tensor) -> Tensor:
                nonlocal loss_K
                loss_K = self.task.loss(out_KC, y_K)
                return loss_K.mean() if weight_K is None else loss_K @ weight_K / weight_K.sum()

            length = instance_filter.step_length(len(kept_K), len(batch.y_B))
            loss = self._update(batch.x_BCHW[kept_K], y_K, weighted_loss, length)
        instance_filter.learn(batch, kept_K, loss_K.detach())
        return self._stats(
            batch.x_BCHW,
            kept=len(kept_K),
            looked_at=batch.looked_at,
            macs_network=instance_filter.macs - macs_before,
            loss=loss,
        )

    def _update(
        self, x_KCHW: Tensor, y_K: Tensor, loss_of: Callable[[Tensor], Tensor], length: float = 1.0
    ) -> float:
        self.optimizer.zero_grad()
        out_KC = self.task.outputs(self._outputs(x_KCHW), len(x_KCHW))
        self.task.check_targets(y_K, out_KC)
        require_gradient(out_KC)
        loss = loss_of(out_KC)
        value = loss.item()
        if not math.isfinite(value):
            require_finite_inputs(x_KCHW)
        (length * loss).backward()
        self.optimizer.step()
        return value

    def _outputs(self, x_KCHW: Tensor) -> object:
        if len(x_KCHW) > 1:
            return self.model(x_KCHW)
        with norms_for_one(self.model):
            return self.model(x_KCHW)

    def _stats(
        self,
        x_BCHW: Tensor,
        *,
        kept: int,
        loss: float,
        looked_at: int = 0,
        macs_network: int = 0,
    ) -> TrainStats:
        seen, table = len(x_BCHW), self.table(x_BCHW, kept)
        forward = kept * table.forward
        looks = looked_at * self.table(x_BCHW, looked_at, look=True).forward if looked_at else 0
        backward = self._backward_cost(table, x_BCHW, kept)
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
            macs_dense=seen * self.table(x_BCHW, seen).training,
            selection_adds=backward.selection_adds,
            bit_operations=bits + FLOAT_BIT_OPERATIONS * macs_network,
            loss_sum=loss * kept,
        )

    def table(self, x_BCHW: Tensor, instances: int, *, look: bool = False) -> MacTable:
        """Of a step on that many of these instances, or of a look at them. UserError for what cannot be counted, or
        rounded."""
        count, shape = count_forward if look else count_macs, x_BCHW.shape[1:]
        dtype = None if x_BCHW.is_floating_point() else x_BCHW.dtype
        kind = count, shape, dtype
        if kind not in self.tables:
            self.tables[kind] = count(self.model, shape, None, dtype)
            if self.quantization is not None:
                self.quantization.require_rounded(self.tables[kind])
        if self.tables[kind].per_instance or not instances:
            return self.tables[kind]
        if (kind, instances) not in self.tables:
            self.tables[kind, instances] = count(self.model, shape, instances, dtype)
        return self.tables[kind, instances]

    def _backward_cost(self, table: MacTable, x_BCHW: Tensor, kept: int) -> BackwardCost:
        """Of this step: as the pruner counted it, or dense."""
        if self.error_maps is None:
            return BackwardCost(kept * table.error_propagation, kept * table.weight_gradient)
        before, self.pruner_cost = self.pruner_cost, self.error_maps.cost
        outside = self.error_maps.cost_outside((kept, *x_BCHW.shape[1:])) if kept else BackwardCost()
        return self.pruner_cost - before + outside
