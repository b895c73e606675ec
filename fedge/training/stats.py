"""What a call of `train` or `evaluate` did, and what it cost."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TrainStats:
    """What a call of `train` did and what it cost; `a + b` is what both did together.

    MACs are those of convolutions and linear layers. `macs_filter` is all that choosing cost: the filter's own
    network, forward and backward, and the main network's forward passes made only to choose. `macs_dense` is plain SGD
    on every instance seen, of the model *as it was passed*: cut to half, it has half the cost, and what cutting saved
    is not in `saved`. `selection_adds` is the error maps' ranking, one addition per element ranked; it is not a MAC and
    is not in `macs_done`. `bit_operations` weighs each product by the bits of its two factors (32 x 32 unless
    quantised) and is 1024 * `macs_done` for float.
    """

    samples_seen: int = 0
    samples_kept: int = 0
    samples_looked_at: int = 0
    steps: int = 0
    macs_forward: int = 0
    macs_error_propagation: int = 0
    macs_weight_gradient: int = 0
    macs_filter: int = 0
    macs_dense: int = 0
    selection_adds: int = 0
    bit_operations: int = 0
    loss_sum: float = 0.0

    @property
    def macs_done(self) -> int:
        """All that ran, the filter included."""
        return self.macs_forward + self.macs_error_propagation + self.macs_weight_gradient + self.macs_filter

    @property
    def loss(self) -> float:
        """Mean training loss over the kept instances; nan when nothing was kept."""
        return self.loss_sum / self.samples_kept if self.samples_kept else math.nan

    @property
    def kept_share(self) -> float:
        """Share of the instances seen that trained the network; nan when none was seen."""
        return self.samples_kept / self.samples_seen if self.samples_seen else math.nan

    @property
    def saved(self) -> float:
        """1 - done / dense; 0 is plain SGD of the model as passed (cut or not), negative costs more than it."""
        return 1 - self.macs_done / self.macs_dense if self.macs_dense else 0.0

    def __add__(self, other: "TrainStats") -> "TrainStats":
        return TrainStats(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What was answered right, in the samples' order, and the mean loss over them (nan for none).

    `right_N`: of N samples asked for a class or for numbers, [N] bool; of K labels each, [N, K]; of a class for every
    pixel, of all pixels. `error_N`: how far off each answer is, where numbers are asked for (else None).
    """

    right_N: Tensor  # bool
    loss: float
    error_N: Tensor | None = None  # float64

    @property
    def correct(self) -> int:
        """Decisions that are right."""
        return int(torch.count_nonzero(self.right_N))

    @property
    def count(self) -> int:
        """Samples asked; pixels, where each has a class."""
        return len(self.right_N)

    @property
    def decisions(self) -> int:
        """That one sample asks for: 1, or its K labels."""
        return self.right_N.shape[1] if self.right_N.dim() == 2 else 1

    @property
    def accuracy(self) -> float:
        """Share of the decisions that are right, in 0..1; nan for no sample."""
        return self.correct / self.right_N.numel() if self.right_N.numel() else math.nan

    @property
    def error_sum(self) -> float:
        """The samples' errors together, in the targets' unit; 0 where none is told."""
        return 0.0 if self.error_N is None else math.fsum(self.error_N.tolist())

    @property
    def error(self) -> float:
        """Mean absolute error; nan for no sample, and where none is told."""
        return self.error_sum / self.count if self.count and self.error_N is not None else math.nan
