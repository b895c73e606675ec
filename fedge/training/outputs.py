"""What a network must return, and what its targets must be, checked where they meet.

A network returns one tensor of logits: [B, K] for a class per instance, [B, K, ...] for a class per pixel. Its targets
are class numbers 0 .. K - 1 in one of torch's integer types, [B] or [B, ...]. Where labels or numbers are asked for
(task.py), outputs and targets are [B, K]. Shapes: B instances, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedge.errors import UserError

_WANTED = "one tensor of logits [B, K] is wanted"


def one_tensor(output: object, wanted: str = _WANTED) -> Tensor:
    """`output` itself; UserError where a network returned a tuple, a dict, None or the like."""
    if isinstance(output, Tensor):
        return output
    if output is None:
        raise UserError(f"the network returns None; {wanted}: let its forward return them")
    name = type(output).__name__
    kind = "tuple" if isinstance(output, tuple) else "dict" if isinstance(output, dict) else name
    came = f"a {kind} came" + ("" if kind == name else f" ({name})")
    raise UserError(f"the network returns no tensor; {wanted}, {came}: return that alone")


def logits_of(output: object, instances: int) -> Tensor:
    """`output` as logits [instances, K, ...], K >= 2; UserError where it is anything else."""
    logits = one_tensor(output)
    shape = list(logits.shape)
    if len(shape) < 2 or shape[0] != instances:
        raise UserError(
            f"the network returns a tensor {shape} for {instances} instances; {_WANTED}, here [{instances}, K]: "
            "one row for each instance, one column for each class"
        )
    if shape[1] < 2:
        raise UserError(
            f"the network returns {shape}, a single logit for each instance; {_WANTED} with K at least 2: "
            "give a class of its own to each answer"
        )
    if not logits.is_floating_point():
        raise UserError(f"the network returns numbers of type {logits.dtype}; {_WANTED}, of floats")
    return logits


def require_gradient(logits_BK: Tensor) -> None:
    """UserError where a training step could change nothing."""
    if not logits_BK.requires_grad:
        raise UserError(
            "the network's logits need no gradient, so that nothing can be trained: let a parameter require one, and "
            "leave detach() and no_grad() out of its forward"
        )


def check_targets(y_B: object, logits_BK: Tensor) -> None:
    """UserError unless `y_B` holds a class number 0 .. K - 1 for each row of the logits."""
    if not isinstance(y_B, Tensor):
        raise UserError(f"targets are a {type(y_B).__name__}; one tensor of class numbers [B] is wanted")
    wanted = [len(logits_BK), *logits_BK.shape[2:]]
    if y_B.dtype not in (torch.int64, torch.uint8):
        raise UserError(
            f"targets are of type {y_B.dtype}; class numbers of type torch.int64 are wanted: make them with .long() "
            "where they are classes, and leave out what is no classification"
        )
    if list(y_B.shape) != wanted:
        raise UserError(
            f"targets have the shape {list(y_B.shape)}; {wanted} is wanted for logits {list(logits_BK.shape)}: "
            "one class number for each"
        )
    if not y_B.numel():
        return
    least, most = (int(bound) for bound in torch.aminmax(y_B))
    classes = logits_BK.shape[1]
    if least < 0 or most >= classes:
        raise UserError(
            f"targets are {least} to {most}; 0 to {classes - 1} is wanted, as the network has {classes} classes"
        )


def check_inputs(x_BCHW: object, model: nn.Module) -> None:
    """UserError unless `x_BCHW` is a tensor of the floats that the network computes in (or of whole numbers)."""
    if not isinstance(x_BCHW, Tensor):
        raise UserError(f"a mini-batch's x is a {type(x_BCHW).__name__}; a tensor [B, ...] is wanted")
    parameter = next(model.parameters(), x_BCHW)
    floats = x_BCHW.is_floating_point() and parameter.is_floating_point()
    if floats and x_BCHW.dtype != parameter.dtype and not torch.is_autocast_enabled(x_BCHW.device.type):
        raise UserError(
            f"a mini-batch's x is of type {x_BCHW.dtype}; {parameter.dtype} is wanted, the type of the network: "
            "convert the data or the network"
        )


def require_finite_inputs(x_BCHW: Tensor) -> None:
    """UserError where a loss that is not finite comes from the data."""
    bad = int((~x_BCHW.flatten(1).isfinite().all(1)).sum())
    if bad:
        raise UserError(
            f"{bad} of {len(x_BCHW)} instances of a mini-batch hold nan or infinity, and so does its loss: "
            "clean the data"
        )


def one_per_column(output: object, samples: int, what: str, column: str) -> Tensor:
    """`output` as one tensor of floats [samples, K], one column for each `column`; UserError where it is not."""
    out = one_tensor(output, f"one tensor of {what} [B, K] is wanted")
    if out.dim() != 2 or len(out) != samples or not out.is_floating_point():
        raise UserError(
            f"the network returns a tensor {list(out.shape)} of {_dtype(out)} for {samples} samples; floats "
            f"[{samples}, K] are wanted: one row for each sample, one column for each {column}"
        )
    return out


def require_tensor(y_B: object, shape: Sequence[int], what: str) -> Tensor:
    """`y_B` as a tensor of that shape; UserError where it is not. what: it holds."""
    if not isinstance(y_B, Tensor):
        raise UserError(f"targets are a {type(y_B).__name__}; one tensor of {what} [B, K] is wanted")
    if y_B.shape != torch.Size(shape):
        advice = (
            "y[:, None]" if list(y_B.shape) == list(shape)[:1] and shape[1] == 1 else "one for each output"
        )
        raise UserError(
            f"targets have the shape {list(y_B.shape)}; {list(shape)} is wanted, as the network's outputs: {advice}"
        )
    return y_B


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def finite_weights(model: nn.Module) -> bool:
    """Whether parameters and running statistics are numbers: a loss is of before the step that made them."""
    state: list[Tensor] = [*model.parameters()]
    for layer in model.modules():
        state += [t for t in (getattr(layer, n, None) for n in _STATISTICS) if isinstance(t, Tensor)]
    return all(bool(tensor.isfinite().all()) for tensor in state)


_STATISTICS = ("running_mean", "running_var")
