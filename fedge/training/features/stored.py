"""Features of factory samples, k for each class, that are shipped to be replayed.

Shapes: N samples, C classes, k of each at most, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedge.errors import UserError


@dataclass(frozen=True, eq=False)
class Stored:
    """`features_CkF`, of which the first `count_C` of each class are there; zeros behind."""

    features_CkF: Tensor
    count_C: Tensor

    @classmethod
    def chosen(cls, features_NF: Tensor, y_N: Tensor, classes: int, each: int, seed: int) -> "Stored":
        """`each` of every class by chance, or all where there are fewer. UserError without any."""
        if not len(y_N):
            raise UserError(
                "training.source is 'replay' and the factory has no samples to take features of: give "
                "data.factory_fraction some, or take 'own'"
            )
        order_N = torch.randperm(len(y_N), generator=torch.Generator().manual_seed(seed))
        features_CkF = torch.zeros(classes, each, features_NF.shape[1])
        count_C = torch.zeros(classes, dtype=torch.long)
        for c in range(classes):
            rows_k = order_N[y_N[order_N] == c][:each]
            features_CkF[c, : len(rows_k)] = features_NF[rows_k].float()
            count_C[c] = len(rows_k)
        return cls(features_CkF, count_C)

    @property
    def classes(self) -> int:
        """C."""
        return len(self.features_CkF)

    @property
    def present_C(self) -> Tensor:
        """bool: whether there is a feature."""
        return self.count_C > 0

    @property
    def nbytes(self) -> int:
        """Of those that are there."""
        return int(self.count_C.sum()) * self.features_CkF.shape[2] * self.features_CkF.element_size()

    def draw(self, y_B: Tensor, generator: torch.Generator) -> Tensor:
        """A feature of each of these classes, each time any of the stored [B, F]."""
        place_B = (torch.rand(len(y_B), generator=generator, dtype=torch.float64) * self.count_C[y_B]).long()
        return self.features_CkF[y_B, place_B]

    def cut(self, kept: Sequence[int]) -> "Stored":
        """The same samples with these features alone."""
        return Stored(self.features_CkF[:, :, torch.as_tensor(kept, dtype=torch.long)], self.count_C)

    def tensors(self) -> dict[str, Tensor]:
        """What is kept of it in a file."""
        return {"features": self.features_CkF, "count": self.count_C}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Stored":
        """From what `tensors` gave."""
        return cls(tensors["features"], tensors["count"])
