"""Training streams: a data set in its usual shuffled epochs, and what reaches a camera at the edge instead.

    plain       shuffled epochs
    long_tail   class c has 100^(-c / (C - 1)) of its images; the test set stays balanced
    runs        frames come in runs of 16: one image, shifted by up to one pixel and with noise, frame by frame
    parked      as runs, but a picture stays for L frames, P(L >= l) = 1 / l up to 500: half of the pictures are gone
                after one frame, and half of the frames are of one picture in fifty
    drift       a fifth of the classes more in every fifth of the stream, shuffled among those already known
    noise       one label in ten is replaced by a wrong one (training only)

The laws of the orders are those of `fedge.data.stream`, which gives a device frames to store some of; `fedge study
stream-storage` and `stream-pace` are about that. Here nothing is stored: every frame is in one mini-batch, in the order
in which it came, one label in ten may be wrong, and pictures are cropped and flipped, as in the papers' experiments.
A stream is a function of (regime, seed, length): mini-batch i is the same for every method that trains for as long.
Shapes: B instances in a mini-batch, N in the training set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedge.data.augment import crop_flip
from fedge.data.dataset import DataSet
from fedge.data.datasets import load_dataset
from fedge.data.stream.order import LONGEST_STAY, RUN_LENGTH, TAIL_RATIO
from fedge.data.stream.pictures import FRAME_NOISE
from fedge.errors import UserError
from fedge.seeding import derive_seed

REGIMES = ("plain", "long_tail", "runs", "parked", "drift", "noise")
WRONG_LABELS = 0.1
DRIFT_PHASES = 5


@dataclass(frozen=True, eq=False)
class Stream:
    """Normalised pictures, channels last in memory (a third faster on CPU), and the order they come in."""

    regime: str
    augment: bool
    seed: int
    x_NCHW: Tensor
    y_N: Tensor
    x_test_NCHW: Tensor
    y_test_N: Tensor
    num_classes: int

    @classmethod
    def load(cls, dataset: str, root: str, regime: str, seed: int) -> "Stream":
        """CIFAR pictures are augmented (crop, flip) as they come; digits are not."""
        if regime not in REGIMES:
            raise UserError(f"stream: regime is '{regime}'; take one of {', '.join(REGIMES)}")
        data = load_dataset(dataset, root)
        x_NCHW, y_N = _normalised(data), torch.from_numpy(data.y)
        stop = data.train_count
        generator = torch.Generator().manual_seed(derive_seed(seed, regime, "data"))
        rows_N, labels_N = _degrade(regime, y_N[:stop], data.num_classes, generator)
        return cls(
            regime, dataset.startswith("cifar"), seed, x_NCHW[:stop][rows_N], labels_N,
            x_NCHW[stop:], y_N[stop:], data.num_classes,
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, int, int]:
        """[C, H, W] of a picture."""
        return tuple(self.x_NCHW.shape[1:])

    def batches(self, batch_size: int, iterations: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`iterations` mini-batches, always full, epoch after epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.regime, "order"))
        order = _order(self.regime, self.y_N, self.num_classes, batch_size * iterations, generator)
        for rows_B in order.split(batch_size):
            x_BCHW = self.x_NCHW[rows_B]
            if self.augment:
                x_BCHW = crop_flip(x_BCHW, generator)
            if self.regime in ("runs", "parked"):
                x_BCHW = _next_frames(x_BCHW, generator)
            yield x_BCHW.contiguous(memory_format=torch.channels_last), self.y_N[rows_B]

    def test_batches(self, batch_size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
        """The test set, untouched by the regime."""
        return zip(self.x_test_NCHW.split(batch_size), self.y_test_N.split(batch_size), strict=True)


def _normalised(data: DataSet) -> Tensor:
    mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    x_NCHW = torch.from_numpy(data.x).contiguous(memory_format=torch.channels_last)
    return x_NCHW.float().div_(255).sub_(mean_C11).div_(std_C11)


def _degrade(regime: str, y_N: Tensor, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows that exist in this regime, and their labels."""
    rows_N = torch.arange(len(y_N))
    if regime == "long_tail":
        share_C = TAIL_RATIO ** (-torch.arange(classes) / (classes - 1))
        rows_N = rows_N[torch.rand(len(y_N), generator=generator) < share_C[y_N]]
    labels_N = y_N[rows_N]
    if regime == "noise":
        wrong_N = torch.rand(len(labels_N), generator=generator) < WRONG_LABELS
        other_N = (labels_N + torch.randint(1, classes, labels_N.shape, generator=generator)) % classes
        labels_N = torch.where(wrong_N, other_N, labels_N)
    return rows_N, labels_N


def _order(regime: str, y_N: Tensor, classes: int, length: int, generator: torch.Generator) -> Tensor:
    """Row of each instance of the stream."""
    everything_N = torch.arange(len(y_N))
    if regime == "runs":
        pictures = _epochs(everything_N, -(-length // RUN_LENGTH), generator)
        return pictures.repeat_interleave(RUN_LENGTH)[:length]
    if regime == "parked":
        pictures = _epochs(everything_N, length, generator)
        stay_N = (1 / (1 - torch.rand(length, generator=generator))).clamp(max=LONGEST_STAY).long()
        return pictures.repeat_interleave(stay_N)[:length]
    if regime == "drift":
        phases = range(1, DRIFT_PHASES + 1)
        present = (everything_N[y_N < classes * phase // DRIFT_PHASES] for phase in phases)
        return torch.cat([_epochs(rows, -(-length // DRIFT_PHASES), generator) for rows in present])[:length]
    return _epochs(everything_N, length, generator)


def _epochs(rows_N: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """`length` of the rows, shuffled anew each time all have come."""
    epochs = -(-length // len(rows_N))
    return torch.cat([rows_N[torch.randperm(len(rows_N), generator=generator)] for _ in range(epochs)])[
        :length
    ]


def _next_frames(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture shifted by -1, 0 or 1 pixel each way, with Gaussian noise."""
    shifts_B2 = torch.randint(-1, 2, (len(x_BCHW), 2), generator=generator).tolist()
    shifted = [x_CHW.roll(tuple(shift), (1, 2)) for x_CHW, shift in zip(x_BCHW, shifts_B2, strict=True)]
    return torch.stack(shifted) + FRAME_NOISE * torch.randn(x_BCHW.shape, generator=generator)
