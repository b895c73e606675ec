"""What a device sees in frames that come, before it decides what to keep: scenes that go on, the filter's score."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedge.errors import UserError
from fedge.training.instance_filter.base import InstanceFilter
from fedge.training.instance_filter.early import EarlyInstanceFilter
from fedge.training.instance_filter.near_duplicates import NearDuplicates


class Scenes:
    """Which frames are near-duplicates of those just before. `macs`: what looking cost."""

    def __init__(self, shape: tuple[int, int, int], learnt: Mapping[str, Tensor]) -> None:
        channels, *size = shape
        self._duplicates = NearDuplicates(channels, (size[0], size[1]))
        if learnt:
            self._duplicates.tensors = dict(learnt)
        self.macs = 0

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What it remembers of the frames so far."""
        return self._duplicates.tensors

    def repeated(self, x_FCHW: Tensor) -> Tensor:
        """Of normalised frames, in the order in which they came [F] bool."""
        self.macs += len(x_FCHW) * self._duplicates.macs_per_instance
        return self._duplicates.count(x_FCHW) >= 0.5


class Scores:
    """The early instance filter's prediction that a frame's loss is high, as it stands. `macs`: what looking cost."""

    def __init__(self, instance_filter: InstanceFilter | None, learnt: Mapping[str, Tensor]) -> None:
        if not isinstance(instance_filter, EarlyInstanceFilter):
            raise UserError(
                "data.stream.keep is 'filter', which goes by the early instance filter's score: set "
                "training.instance_filter.kind to 'early'"
            )
        if learnt:
            instance_filter.load_state_dict(dict(learnt))
        self._filter = instance_filter
        self.macs = 0

    def of(self, x_FCHW: Tensor) -> Tensor:
        """z_H - z_L of normalised frames [F]."""
        self.macs += len(x_FCHW) * self._filter.table.forward
        with torch.no_grad():
            logits_F2: Tensor = self._filter.network(x_FCHW)
        return logits_F2[:, 1] - logits_F2[:, 0]
