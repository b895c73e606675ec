"""The channels of all layers as one row of numbers, which of them are tied, and which tensors carry them.

slot = (layer, side, channel), numbered from 1; `KEPT` = 0 is what is never cut. A tensor's labels are the slots of its
elements. They lie in a shadow of its storage, so that a view of any kind reads its labels at its own strides, and a
write into a view is seen by all others. What PyTorch does not offer in public about storages is in this file alone.
"""

from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from fedge.training.pruning.coupling import PINNED, Coupling, Kept
from fedge.training.pruning.layers import LayerShape, cuttable_layers, is_channelwise, shape_of

OUTPUT, INPUT = 0, 1
KEPT = 0


class Slots:
    """Slots 1 .. `total` - 1 of a network's layers, and the ties between them; a tie with slot `KEPT` pins."""

    def __init__(self, model: nn.Module) -> None:
        layers = cuttable_layers(model)
        self.shapes: dict[str, LayerShape] = {name: shape_of(layer) for name, layer in layers.items()}
        sizes = [size for shape in self.shapes.values() for size in (shape.outputs, shape.inputs)]
        *self._starts, self.total = accumulate(sizes, initial=1)
        self._row = {name: 2 * index for index, name in enumerate(self.shapes)}
        self._ties: list[Tensor] = [torch.zeros(2, 0, dtype=torch.int64)]
        for name, layer in layers.items():
            self._tie_within(name, layer)

    def of(self, name: str, side: int) -> Tensor:
        """int64 [channels] of one side of a layer."""
        shape = self.shapes[name]
        start = self._starts[self._row[name] + side]
        return torch.arange(start, start + (shape.inputs if side == INPUT else shape.outputs))

    def tie(self, a: Tensor, b: Tensor) -> None:
        """What stands at one place in the two goes together; both are of one shape."""
        a, b = a.to(torch.int64).flatten(), b.to(torch.int64).flatten()
        differs = a != b
        if bool(differs.any()):
            a, b = a[differs], b[differs]
            if len(a) > 4096:
                pairs = (a * self.total + b).unique()
                a, b = pairs // self.total, pairs % self.total
            self._ties.append(torch.stack((a, b)))

    def pin(self, slots: Tensor) -> None:
        """They are never cut."""
        self.tie(slots, torch.full_like(slots, KEPT))

    def layers_of(self, slots: Tensor) -> list[str]:
        """The layers with an output among the slots."""
        rows = torch.searchsorted(torch.tensor(self._starts), slots[slots != KEPT].unique(), right=True) - 1
        names = list(self.shapes)
        return [names[row // 2] for row in rows.unique().tolist() if row % 2 == OUTPUT]

    def close(self, pinned: list[Tensor], kept: tuple[Kept, ...], *, trains_otherwise: bool) -> Coupling:
        """Number the units in the order of their first slot. An input that no traced output feeds is pinned."""
        pins = [torch.stack((slots, torch.full_like(slots, KEPT))) for slots in pinned]
        root = _components(torch.cat([*self._ties, *pins], dim=1), self.total)
        produced = torch.zeros(self.total, dtype=torch.bool)
        for name in self.shapes:
            produced[root[self.of(name, OUTPUT)]] = True
        produced[root[KEPT]] = False
        number = torch.where(produced, produced.cumsum(0) - 1, PINNED)
        return Coupling(
            units=int(produced.sum()),
            unit_of_output={name: number[root[self.of(name, OUTPUT)]] for name in self.shapes},
            unit_of_input={name: number[root[self.of(name, INPUT)]] for name in self.shapes},
            kept=kept,
            trains_otherwise=trains_otherwise,
        )

    def _tie_within(self, name: str, layer: nn.Module) -> None:
        """A channel-wise layer's input is its output; a grouped convolution keeps its groups alike."""
        shape, outputs, inputs = self.shapes[name], self.of(name, OUTPUT), self.of(name, INPUT)
        if is_channelwise(layer):
            self.tie(outputs, inputs)
        elif shape.separable:
            self.tie(outputs, inputs.repeat_interleave(shape.outputs_per_group))
        else:
            self.tie(outputs, outputs[: shape.outputs_per_group].repeat(shape.groups))
            self.tie(inputs, inputs[: shape.inputs_per_group].repeat(shape.groups))


def _components(ties_2T: Tensor, total: int) -> Tensor:
    """The least slot that each slot is tied to, over any number of ties: int64 [total]."""
    root = torch.arange(total)
    a_T, b_T = ties_2T
    while True:
        low_T = torch.minimum(root[a_T], root[b_T])
        lower = root.clone()
        for end_T in (a_T, b_T):
            lower.scatter_reduce_(0, end_T, low_T, "amin")
            lower.scatter_reduce_(0, root[end_T], low_T, "amin")
        lower = lower[lower]
        if torch.equal(lower, root):
            return root
        root = lower


class Labels:
    """Labels int32 of tensors, as long as their storages live. A tensor that no layer fed has none."""

    def __init__(self) -> None:
        self._shadows: dict[int, tuple[StorageWeakRef, int, Tensor]] = {}

    def of(self, tensor: Tensor) -> Tensor | None:
        """The labels, of the tensor's own shape; None for a constant."""
        key = storage_key(tensor)
        found = self._shadows.get(key) if key is not None else None
        if found is None or found[0].expired():
            return None
        _, itemsize, shadow = found
        if tensor.element_size() != itemsize:  # the same bytes seen as another type
            return torch.zeros(tensor.shape, dtype=torch.int32)
        return shadow.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())

    def put(self, tensor: Tensor, label: Tensor) -> None:
        """Label a tensor; what else its storage holds is `KEPT` where it had no label."""
        key = storage_key(tensor)
        if key is None:
            return
        region = self.of(tensor)
        if region is None:
            storage = tensor.untyped_storage()
            elements = storage.nbytes() // tensor.element_size()
            shadow = torch.zeros(elements, dtype=torch.int32)
            self._shadows[key] = (StorageWeakRef(storage), tensor.element_size(), shadow)
            region = shadow.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
            self._forget()
        if 0 in region.stride():
            for axis, (step, size) in enumerate(zip(region.stride(), region.shape, strict=True)):
                if step == 0 and size > 1:
                    region, label = region.narrow(axis, 0, 1), label.narrow(axis, 0, 1)
        region.copy_(label)

    def _forget(self) -> None:
        if len(self._shadows) % 64 == 0:
            self._shadows = {key: found for key, found in self._shadows.items() if not found[0].expired()}


def storage_key(tensor: Tensor) -> int | None:
    """One number per storage, while it lives; None for a tensor without one (sparse)."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):
        return None


def varies(label: Tensor, axis: int) -> bool:
    """Whether the labels differ along the axis."""
    if label.shape[axis] < 2 or label.stride(axis) == 0:
        return False
    return not torch.equal(
        label.narrow(axis, 1, label.shape[axis] - 1), label.narrow(axis, 0, label.shape[axis] - 1)
    )
