"""What the untouched factory model gets right on a client's test rows: the measure of what a device has learned.

N: the client's test rows, in stored order.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FactoryAnswers:
    """Which test rows it gets right as it was shipped (`right_N`), and told the client's classes (`told_N`); bool.

    Told: the answer is the best of the classes of the client's own training rows, which cost it nothing to know.
    """

    right_N: Tensor
    told_N: Tensor

    @classmethod
    def kept(cls, tensors: Mapping[str, Tensor], count: int) -> "FactoryAnswers | None":
        """From what `tensors` gave in an earlier round; None where that was not for `count` test rows."""
        if tensors.keys() != {"right", "told"} or any(len(tensor) != count for tensor in tensors.values()):
            return None
        return cls(tensors["right"], tensors["told"])

    def tensors(self) -> dict[str, Tensor]:
        """For the device's state: neither the factory model nor the test rows change, so it is asked once."""
        return {"right": self.right_N, "told": self.told_N}

    def tallies(self, right_N: Tensor) -> dict[str, int]:
        """The report's counts beside `right_N`, the rows that the device's own network gets right.

        gained - lost is the difference of the two networks' right answers.
        """
        return {
            "factory_correct": int(torch.count_nonzero(self.right_N)),
            "told_correct": int(torch.count_nonzero(self.told_N)),
            "test_gained": int(torch.count_nonzero(right_N & ~self.right_N)),
            "test_lost": int(torch.count_nonzero(self.right_N & ~right_N)),
        }
