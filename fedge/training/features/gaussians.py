"""A generator of features: for each class a normal distribution of its own mean, and one covariance for all.

    feature | class c  ~  Normal(mean_c, covariance)

The covariance is pooled over the classes: of N samples the sum of (z - mean_c)(z - mean_c)^T, over N less the number of
classes. It takes C F + F^2 numbers, where a covariance for each class would take C F^2. Shapes: N samples, C classes,
F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fedge.errors import UserError

_RIDGE = 1e-6  # of the mean variance: what keeps a covariance of dead features positive


@dataclass(frozen=True, eq=False)
class Gaussians:
    """`mean_CF`, `covariance_FF` (shared), and of how many samples each mean is (`count_C`; 0: none, and no mean)."""

    mean_CF: Tensor
    covariance_FF: Tensor
    count_C: Tensor

    @classmethod
    def fit(cls, features_NF: Tensor, y_N: Tensor, classes: int) -> "Gaussians":
        """To the factory's features of C = `classes` classes. UserError without any."""
        if not len(y_N):
            raise UserError(
                "training.source is 'generated' and the factory has no samples to fit features to: give "
                "data.factory_fraction some, or take 'own'"
            )
        z_NF, count_C = features_NF.double(), torch.bincount(y_N, minlength=classes)
        mean_CF = torch.zeros(classes, z_NF.shape[1], dtype=torch.float64).index_add_(0, y_N, z_NF)
        mean_CF /= count_C.clamp(min=1)[:, None]
        centred_NF = z_NF - mean_CF[y_N]
        free = max(1, len(y_N) - int((count_C > 0).sum()))
        covariance_FF = centred_NF.T @ centred_NF / free
        return cls(mean_CF.float(), covariance_FF.float(), count_C)

    @property
    def classes(self) -> int:
        """C."""
        return len(self.mean_CF)

    @property
    def present_C(self) -> Tensor:
        """bool: whether there is a mean."""
        return self.count_C > 0

    @property
    def nbytes(self) -> int:
        """Of the means and of the covariance, which is symmetric and shipped whole."""
        return self.mean_CF.nbytes + self.covariance_FF.nbytes

    def draw(self, y_B: Tensor, generator: torch.Generator) -> Tensor:
        """Features [B, F] of these classes."""
        noise_BF = torch.randn(len(y_B), self.mean_CF.shape[1], generator=generator)
        return self.mean_CF[y_B] + noise_BF @ self._root_FF.T

    def cut(self, kept: Sequence[int]) -> "Gaussians":
        """The marginal distribution of these features: rows and columns of the covariance, columns of the means."""
        rows = torch.as_tensor(kept, dtype=torch.long)
        return Gaussians(self.mean_CF[:, rows], self.covariance_FF[rows][:, rows], self.count_C)

    def tensors(self) -> dict[str, Tensor]:
        """What is kept of it in a file."""
        return {"mean": self.mean_CF, "covariance": self.covariance_FF, "count": self.count_C}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Gaussians":
        """From what `tensors` gave."""
        return cls(tensors["mean"], tensors["covariance"], tensors["count"])

    @cached_property
    def _root_FF(self) -> Tensor:
        """A lower triangle whose product with its transpose is the covariance."""
        covariance_FF = self.covariance_FF.double()
        ridge = _RIDGE * covariance_FF.diagonal().mean().clamp(min=1e-12)
        root_FF: Tensor = torch.linalg.cholesky(covariance_FF + ridge * torch.eye(len(covariance_FF)))
        return root_FF.float()
