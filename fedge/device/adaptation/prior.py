"""A device's label prior: estimated from its unlabelled rows, kept in its state, applied to its answers.

The factory model answers the pictures of training and validation rows; their labels are not read, and no test row is
looked at. Without a stream the rows stay as they are, and so does the prior: it is estimated once. Of a stream it is
estimated in each round, from what the device has stored. The factory model's logits hold the factory's prior whatever
the device has trained since, so that the estimate does not follow what the device's own network has learnt by heart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from fedge.data.unlabelled import pictures
from fedge.network.shipped import FactoryPrior, factory_prior
from fedge.seeding import derive_seed
from fedge.training.exits.network import ExitNetwork
from fedge.training.label_prior import Corrected, believed, em_prior
from fedge.training.label_prior.em import shift_of
from fedge.training.label_prior.look import logits
from fedge.training.macs import count_forward
from fedge.training.memory_format import fast_order
from fedge.training.task import Task

if TYPE_CHECKING:
    from fedge.device.round import Round

_BATCH = 256
_SPLITS = ("train", "validation")
_ESTIMATE, _TRAINED = "estimate", "trained"


@dataclass(frozen=True, eq=False)
class LabelPrior:
    """`estimate_C` of the device's classes, float64, which sum to 1; `factory`: that of the factory model.

    trained_C: the estimate when the head was last trained on features; None: never.
    """

    estimate_C: Tensor
    factory: FactoryPrior
    trained_C: Tensor | None = None

    def corrected(self, task: Task) -> Corrected:
        """`task` with its answers corrected."""
        return Corrected.by(task, self.estimate_C, self.factory.share_C, self.factory.temperature)

    @classmethod
    def held(cls, tensors: Mapping[str, Tensor], prepared_folder: Path) -> "LabelPrior | None":
        """From what `tensors` gave, and the factory's; None where that was nothing."""
        if _ESTIMATE not in tensors:
            return None
        return cls(tensors[_ESTIMATE], factory_prior(prepared_folder), tensors.get(_TRAINED))

    @property
    def moved(self) -> float:
        """Total variation between the estimate and that of the last training, 0..1; 1 where there was none."""
        if self.trained_C is None:
            return 1.0
        return shift_of(self.estimate_C, self.trained_C)

    def trained(self) -> "LabelPrior":
        """The head has been trained by this estimate."""
        return replace(self, trained_C=self.estimate_C)

    def tensors(self) -> dict[str, Tensor]:
        """For the device's state."""
        held = {_ESTIMATE: self.estimate_C, _TRAINED: self.trained_C}
        return {name: tensor.clone() for name, tensor in held.items() if tensor is not None}


def kept_prior(round: "Round") -> LabelPrior | None:
    """As the device's last round left it; None where there is none, or the settings ask for none."""
    if round.training.prior == "none":
        return None
    return LabelPrior.held(round.before.prior, Path(round.prepared.folder))


def estimated_prior(round: "Round", kept: LabelPrior | None) -> tuple[LabelPrior, int]:
    """From the rows that the device has now, and the MACs of looking at them."""
    prepared, choice = round.prepared, round.training.adaptation
    if kept is not None and round.intake is None:
        return kept, 0
    factory = factory_prior(Path(prepared.folder))
    model = prepared.factory_model().to(round.torch_device)
    if isinstance(model, ExitNetwork):
        model = model.trunk
    rows = pictures(
        round.shard,
        _SPLITS if round.intake is None else _SPLITS[:1],
        _BATCH,
        seed=derive_seed(round.simulated.seed, round.client, "label_prior"),
        most=choice.samples,
        order=fast_order(model, _BATCH, prepared.input_shape),
        device=round.torch_device,
    )
    logits_NC = logits(model, rows, prepared.asked, prepared.num_classes)
    p_NC = (logits_NC / factory.temperature).softmax(1)
    estimate_C = em_prior(p_NC, factory.share_C, choice.pseudo_count)
    estimate_C = believed(estimate_C, factory.share_C, choice.least_shift)
    found = LabelPrior(estimate_C, factory, kept.trained_C if kept is not None else None)
    return found, len(p_NC) * count_forward(model, prepared.input_shape).forward
