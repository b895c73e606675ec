"""What contrastive learning takes of a device's memory, and whether it fits: two views of each sample in the buffer."""

from dataclasses import replace

from torch import nn

from fedge.catalog.devices import DeviceProfile
from fedge.device.memory.demand import peak_bytes
from fedge.device.memory.fitting import Fit, fit
from fedge.scenario.methods.contrast import Contrast
from fedge.scenario.schema import Limits
from fedge.scenario.training import Training
from fedge.training.contrast.nt_xent import NtXent
from fedge.training.contrast.probe import probe_bytes
from fedge.training.contrast.projection import in_place_of_head, linear_head, made_projection

Shape = tuple[int, int, int]


def contrast_peak(
    model: nn.Module,
    training: Training,
    choice: Contrast,
    shape: Shape,
    classes: int,
    copies: int | None = None,
) -> int:
    """Bytes at most, of a network with its own head: of a step, or of the probe after it."""
    name, head = linear_head(model, shape)
    projection = made_projection(head.in_features, 0).to(head.weight.device)
    with in_place_of_head(model, name, projection):
        step = peak_bytes(model, training, 2 * choice.buffer, shape, copies, task=NtXent(choice.temperature))
    tensors = [*model.parameters(), *model.buffers()]
    return max(step, sum(tensor.nbytes for tensor in tensors) + probe_bytes(head, choice.labels * classes))


def contrast_fit(
    model: nn.Module,
    training: Training,
    choice: Contrast,
    limits: Limits,
    profile: DeviceProfile,
    *,
    shape: Shape,
    classes: int,
    copies: int | None = None,
    who: str,
) -> Fit:
    """Whether the device can hold it; neither the buffer nor the network is made smaller where it cannot."""
    need = int(limits.overhead * contrast_peak(model, training, choice, shape, classes, copies))
    decided = fit(
        lambda batch_size, level: need,
        profile.memory_bytes,
        who=who,
        batch_size=2 * choice.buffer,
        level=0.0,
        policy="refuse",
    )
    if decided.fits:
        return decided
    line = decided.line.partition("; ")[0] + f"; lower training.contrast.buffer (now {choice.buffer})"
    return replace(decided, line=line)
