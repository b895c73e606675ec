"""Whether an optimizer trains the model that it is said to train."""

import inspect

import torch
from torch import Tensor, nn

from fedge.errors import UserError

_LIKE_THE_PARAMETER = ("momentum_buffer", "exp_avg", "exp_avg_sq")


def require_own_parameters(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """UserError where `optimizer` holds parameters that are not the model's, or remembers them in another shape.

    One whose step needs a closure, as LBFGS, is refused too. It may hold a part of them: the others stay as they are.
    """
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UserError(
            f"train: {type(optimizer).__name__} runs the network itself, in a closure that its step is given: in a "
            "client program write that loop inside `with device.counted() as count:`, here take another optimizer"
        )
    own = {id(parameter) for parameter in model.parameters()}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    strange = sum(id(parameter) not in own for parameter in held)
    if strange:
        raise UserError(
            f"train: {strange} of the {len(held)} parameters that the optimizer holds are not the model's: it was made "
            "for another model, or for this one before it was cut; make one from model.parameters() now"
        )
    for parameter in held:
        state = optimizer.state.get(parameter, {})
        remembered = [state[name] for name in _LIKE_THE_PARAMETER if isinstance(state.get(name), Tensor)]
        if any(tensor.shape != parameter.shape for tensor in remembered):
            raise UserError(
                "train: the optimizer remembers gradients of another shape than its parameters have now: it has "
                "trained the model before it was cut; make one from model.parameters() now"
            )
