"""What training goes through: mini-batches of (x_BCHW, y_B)."""

from collections.abc import Iterable

from torch import Tensor

Pair = tuple[Tensor, Tensor]
Batches = Iterable[Pair]
