"""Which tensors a yardstick shares, how a client trains, and which network serves it.

    fedavg            all shared; the average serves          McMahan et al., AISTATS 2017, arXiv 1602.05629
    fedavg_finetune   all shared; what each client trained of the last average serves it       arXiv 2206.13190
    fedbn             all but the norms shared; the average with one's own norms serves        arXiv 2102.07623
    fedrep            all but the head shared; head, then body are trained; as above, own head arXiv 2102.07078
    ditto             all shared; a personal network, held near the average, serves            arXiv 2012.04221

Changed: every client takes part in every round. fedavg_finetune costs no step more than fedavg: it is judged one local
training later. FedRep trains the head for `training.epochs` and the body for one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from fedge.training.torch_private import BatchNorm, InstanceNorm
from fedge.training.update.what import freeze, trained

NORMS = (BatchNorm, InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
PROXIMITY = 0.1
"""Ditto's lambda: how strongly the personal network is drawn to the average."""

Shape = Sequence[int]
Owned = Callable[[nn.Module, Shape], frozenset[str]]  # the names in a state that never leave a client


@dataclass(frozen=True)
class Yardstick:
    """owned: what stays on a client. serves: the average, with what is owned; the network as the client has just
    trained it; or a personal one. alternates: the head is trained first, then the rest."""

    owned: Owned
    serves: Literal["average", "trained", "personal"] = "average"
    alternates: bool = False


def nothing(model: nn.Module, shape: Shape) -> frozenset[str]:
    return frozenset()


def norms(model: nn.Module, shape: Shape) -> frozenset[str]:
    """Scale, shift and statistics of every norm."""
    return frozenset(
        f"{name}.{key}" if name else key
        for name, layer in model.named_modules()
        if isinstance(layer, NORMS)
        for key in layer.state_dict()
    )


def head(model: nn.Module, shape: Shape) -> frozenset[str]:
    """The last layer that multiplies; the model's parameters are left to be trained as they were."""
    before = trained(model)
    freeze(model, "head", shape)
    found = trained(model)
    only(model, before)
    return found


def only(model: nn.Module, names: frozenset[str]) -> None:
    """Leave the parameters of these names to be trained."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


YARDSTICKS = {
    "fedavg": Yardstick(nothing),
    "fedavg_finetune": Yardstick(nothing, serves="trained"),
    "fedbn": Yardstick(norms),
    "fedrep": Yardstick(head, alternates=True),
    "ditto": Yardstick(nothing, serves="personal"),
}
