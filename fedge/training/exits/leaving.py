"""How sure each exit is and how often it is right, the thresholds that follow, and what leaving early saves.

The threshold of an exit is chosen on validation samples, exit after exit, among those that have not left before:

    tau_k = the least confidence t with   right_k(sure >= t)  >=  wanted(sure >= t)

    wanted = accuracy * number of these samples         where an accuracy is asked for
             right answers of the last exit on them - slack * their number        else: leaving early loses no more

so that as many samples leave as can. Where no t will do, nobody leaves. Where labels are not known, the last exit's
answers stand in for them. Shapes: N samples, E exits, the last one last, K = E - 1 before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedge.training.batches import Batches
from fedge.training.exits.network import NEVER, ExitNetwork
from fedge.training.macs import count_forward, evaluating
from fedge.training.torch_device import BroughtTo, device_of


@dataclass(frozen=True, eq=False)
class Judged:
    """How sure each exit is of each sample, 0..1, and whether its answer is right; both [N, E]."""

    sure_NE: Tensor
    right_NE: Tensor  # bool

    def leaving(self, thresholds_K: Tensor) -> Tensor:
        """The exit at which each sample leaves [N], counted from 0."""
        stays_NK = ~(self.sure_NE[:, :-1] >= thresholds_K.to(self.sure_NE))
        return stays_NK.long().cumprod(1).sum(1)

    def tallies(self, thresholds_K: Tensor) -> tuple[list[int], list[int], list[int]]:
        """Per exit: samples that leave there, right answers among them, right answers of that exit on all samples."""
        exits = self.right_NE.shape[1]
        leaving_N = self.leaving(thresholds_K)
        left = [int((leaving_N == place).sum()) for place in range(exits)]
        right = [int(self.right_NE[leaving_N == place, place].sum()) for place in range(exits)]
        return left, right, [int(count) for count in self.right_NE.sum(0)]


def judged(model: ExitNetwork, batches: Batches) -> Judged:
    """What every exit says to batches of (x_BCHW, y_B), in evaluation mode; the model's own modes are put back.

    A target of -1 is not known: the last exit's answer stands in for it. Answers are among `model.among`.
    """
    sure, right = (
        [torch.empty(0, len(model.exits) + 1)],
        [torch.empty(0, len(model.exits) + 1, dtype=torch.bool)],
    )
    with evaluating(model), model.telling_all(), torch.no_grad():
        for x_BCHW, y_B in BroughtTo(batches, device_of(model)):
            out_BCE = model(x_BCHW)
            by_exit = [
                out_BC.contiguous() for out_BC in out_BCE.unbind(2)
            ]  # as sure to the bit as in forward
            sure.append(torch.stack([model.sure(out_BC) for out_BC in by_exit], 1).cpu())
            answer_BE = _answers(out_BCE, model.among)
            y_B = y_B.long()
            wanted_B = torch.where(y_B < 0, answer_BE[:, -1], y_B)
            right.append((answer_BE == wanted_B[:, None]).cpu())
    return Judged(torch.cat(sure), torch.cat(right))


def _answers(out_BCE: Tensor, among: Sequence[int] | None) -> Tensor:
    if among is None:
        return out_BCE.argmax(1)
    own_O = torch.tensor(among, device=out_BCE.device)
    return own_O[out_BCE.index_select(1, own_O).argmax(1)]


def chosen_thresholds(on_validation: Judged, *, accuracy: float | None = None, slack: float = 0.0) -> Tensor:
    """The thresholds [K] of the formula above. accuracy, slack: shares, 0..1. No sample: nobody leaves early."""
    sure_NE, right_NE = on_validation.sure_NE, on_validation.right_NE
    thresholds = []
    for place in range(sure_NE.shape[1] - 1):
        right_N, last_N = right_NE[:, place].double(), right_NE[:, -1].double()
        wanted_N = (last_N - slack) if accuracy is None else torch.full_like(right_N, accuracy)
        threshold = _least(sure_NE[:, place], right_N - wanted_N)
        stays_N = ~(sure_NE[:, place] >= threshold)
        sure_NE, right_NE = sure_NE[stays_N], right_NE[stays_N]
        thresholds.append(threshold)
    return torch.tensor(thresholds)


def _least(sure_N: Tensor, surplus_N: Tensor) -> float:
    """The least confidence from which upwards the surpluses sum to 0 or more."""
    order_N = sure_N.argsort(descending=True, stable=True)
    sure_N, sum_N = sure_N[order_N], surplus_N[order_N].cumsum(0)
    last_of_equals_N = torch.ones_like(sure_N, dtype=torch.bool)
    last_of_equals_N[:-1] = sure_N[1:] < sure_N[:-1]
    enough = (last_of_equals_N & (sum_N >= -1e-9)).nonzero().flatten()
    return float(sure_N[enough[-1]]) if len(enough) else NEVER


def macs_to_leave(model: ExitNetwork, input_shape: Sequence[int]) -> list[int]:
    """MACs of one sample [C, H, W] that leaves at each exit [E]: the trunk so far, and every exit on the way.

    The last is the worst case: the whole trunk and all exits, more than the trunk without exits.
    """
    layers = count_forward(model, input_shape).layers
    sums: list[int] = []
    done = place = 0
    for index, layer in enumerate(layers):
        done += layer.forward
        own = f"exits.{place}."
        is_last_of_exit = layer.name.startswith(own) and not any(
            later.name.startswith(own) for later in layers[index + 1 :]
        )
        if is_last_of_exit:
            sums.append(done)
            place += 1
    return [*sums, done]
