"""Features that come with the factory model, and mini-batches drawn of them.

Which classes are drawn, and how often, is the device's to say; the features of a class are the factory's. Nothing of a
device's own data is in either. Shapes: B drawn, C classes, F features.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from fedge.errors import UserError


class Shipped(Protocol):
    """Features by class, as they were at the factory."""

    @property
    def classes(self) -> int:
        """C."""

    @property
    def present_C(self) -> Tensor:
        """bool: whether the factory has met the class, and features of it can be drawn."""

    @property
    def nbytes(self) -> int:
        """What is shipped to a device, in 32-bit floats."""

    def draw(self, y_B: Tensor, generator: torch.Generator) -> Tensor:
        """Features [B, F] of these classes."""

    def cut(self, kept: Sequence[int]) -> "Shipped":
        """Those of a network that has these of its features left, in that order."""


def drawn_epoch(
    shipped: Shipped, share_C: Tensor, samples: int, batch_size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """`samples` features with their classes, drawn by the classes' shares [C], in mini-batches; the last may be short.

    A class that the factory never met has none to draw, and is left out. UserError where that leaves none.
    """
    share_C = torch.where(shipped.present_C, share_C, torch.zeros_like(share_C))
    if not bool(share_C.sum() > 0):
        raise UserError("training.source: the factory has met none of the device's classes: take 'own'")
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, samples, batch_size):
        count = min(batch_size, samples - start)
        y_B = torch.multinomial(share_C.double(), count, replacement=True, generator=generator)
        yield shipped.draw(y_B, generator), y_B
