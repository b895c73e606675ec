"""A projection in the place of a network's head while it learns by contrast, z = h(f(x)).

h is linear to 64, ReLU, linear to 64 numbers. It stands where the classifier stood, so that everything that counts,
prunes error maps or estimates memory sees an ordinary network. Afterwards the head is back as it was, and h is its
owner's to keep or to forget: the network that serves has no part of it. Shapes: F features in front of the head.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from fedge.errors import UserError
from fedge.training.update.what import head_of

WIDTH = 64
"""Hidden units, and numbers of an embedding."""


def made_projection(features: int, seed: int) -> nn.Sequential:
    """With fresh weights, a function of `seed`; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone
        return nn.Sequential(nn.Linear(features, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


def linear_head(model: nn.Module, input_shape: Sequence[int]) -> tuple[str, nn.Linear]:
    """Name and layer. UserError where the network does not end in a linear layer."""
    name = head_of(model, input_shape)
    head = model.get_submodule(name)
    if not isinstance(head, nn.Linear):
        raise UserError(
            f"training.contrast puts a projection in the place of a linear head, and the network's last layer that "
            f"multiplies, {name!r}, is a {type(head).__name__}: take a network that ends in a linear layer"
        )
    return name, head


@contextmanager
def in_place_of_head(model: nn.Module, name: str, projection: nn.Module) -> Iterator[None]:
    """Inside, the layer `name` is the projection."""
    parent_name, _, leaf = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    head = getattr(parent, leaf)
    setattr(parent, leaf, projection)
    try:
        yield
    finally:
        setattr(parent, leaf, head)
