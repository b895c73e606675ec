"""Random changes to training batches: what a transform is, those that have a name, and one's own held to its word.

    def jitter(x_BCHW, generator):             # augment.py
        gain_B111 = 1 + 0.2 * (torch.rand(len(x_BCHW), 1, 1, 1, generator=generator) - 0.5)
        return (x_BCHW * gain_B111).clamp(0, 1)

It sees a training batch before it is normalised, float32 on the CPU (pictures 0..1, a copy), and gives one like it. All
chance must come from `generator`, which is seeded by (run, client, round, epoch): then a run is the same wherever it
runs.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fedge.catalog import names
from fedge.catalog.named import Named
from fedge.errors import UserError

Transform = Callable[[Tensor, torch.Generator], Tensor]

TRANSFORMS: Mapping[str, Transform | None] = Named(names.TRANSFORMS)


def works_anywhere(transform: Transform | None) -> bool:
    """Whether it runs where the data go, and not on the CPU alone, as its generator does: fedge's own."""
    return any(transform is known for known in TRANSFORMS.values())


def transformed(transform: Transform, x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """`x_BCHW` float32 as the transform makes it; UserError where that is no batch like it."""
    wanted = x_BCHW.shape
    made: object = transform(x_BCHW, generator)
    name = getattr(transform, "__name__", type(transform).__name__)
    if not isinstance(made, Tensor):
        raise UserError(
            f"transform {name!r} returned a {type(made).__name__}; a batch {list(wanted)} like the one given is wanted"
        )
    if made.shape != wanted or made.dtype != torch.float32:
        dtype = str(made.dtype).removeprefix("torch.")
        raise UserError(
            f"transform {name!r} returned {dtype} {list(made.shape)} for float32 {list(wanted)}; the same shape and "
            "type are wanted"
        )
    return made
