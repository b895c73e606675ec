"""A network about to be given weights: its layers are settled once in a process, for every device of that shape.

Fresh weights, and the check that a topology belongs to its network, cost more than a small network's round of training
on a few samples. Layers without numbers are kept, so what is held does not grow with the networks' size.
"""

import copy
import functools

from torch import nn

from fedge.network.source import NetworkSource, Shape, WithExits
from fedge.training.pruning.topology import Topology

_KEPT = 512  # shapes of networks; each device of a fleet may have its own


def blank(source: NetworkSource, num_classes: int, shape: Shape, topology: str | None = None) -> nn.Module:
    """The network of `source` for samples [C, H, W], cut as the record `topology` says; its weights are to be loaded.

    Its parameters and buffers hold anything. A network of one's own is built each time, as nobody knows what its
    function does. UserError as from `NetworkSource.build` and `Topology.rebuild`.
    """
    if source.is_own:
        return _built(source, num_classes, shape, topology)
    key = source.name, tuple(sorted(source.args.items())), source.exits
    return copy.deepcopy(_layers(*key, num_classes, shape, topology)).to_empty(device="cpu")


@functools.lru_cache(_KEPT)
def _layers(
    name: str,
    args: tuple[tuple[str, object], ...],
    exits: WithExits | None,
    num_classes: int,
    shape: Shape,
    topology: str | None,
) -> nn.Module:
    """Of a word of fedge's, whose state is all that its tensors are."""
    return _built(NetworkSource(name, dict(args), exits=exits), num_classes, shape, topology).to("meta")


def _built(source: NetworkSource, num_classes: int, shape: Shape, topology: str | None) -> nn.Module:
    def build() -> nn.Module:
        return source.build(num_classes, shape)

    return Topology.from_json(topology).rebuild(build) if topology else build()
