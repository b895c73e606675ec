"""Which channel every element of a tensor belongs to, followed through views by their storage.

A label is the number of a slot (coupling.py); `KEPT` is what is never cut. Labels lie in a shadow of each storage,
element by element, so that a view of any kind reads its labels at its own strides, and a write into a view is seen by
all others. What PyTorch does not offer in public about storages is in this file alone.
"""

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from fedge.training import torch_private

KEPT = 0


class Labels:
    """Labels int32 of tensors, as long as their storages live. A tensor that no layer fed has none."""

    def __init__(self) -> None:
        self._shadows: dict[int, tuple[StorageWeakRef, int, Tensor]] = {}

    def of(self, tensor: Tensor) -> Tensor | None:
        """The labels, of the tensor's own shape; None for a constant."""
        key = storage_key(tensor)
        found = self._shadows.get(key) if key is not None else None
        if found is None or _expired(found[0]):
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
            self._shadows[key] = (_weak(storage), tensor.element_size(), shadow)
            region = shadow.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
            self._forget()
        if 0 in region.stride():
            for axis, (step, size) in enumerate(zip(region.stride(), region.shape, strict=True)):
                if step == 0 and size > 1:
                    region, label = region.narrow(axis, 0, 1), label.narrow(axis, 0, 1)
        region.copy_(label)

    def _forget(self) -> None:
        if len(self._shadows) % 64 == 0:
            self._shadows = {key: found for key, found in self._shadows.items() if not _expired(found[0])}


def _weak(storage: torch.UntypedStorage) -> StorageWeakRef:
    return StorageWeakRef(storage)


def _expired(reference: StorageWeakRef) -> bool:
    return bool(reference.expired())


def storage_key(tensor: Tensor) -> int | None:
    """One number per storage, while it lives; None for a tensor without one (sparse)."""
    try:
        return torch_private.storage_key(tensor)
    except (RuntimeError, NotImplementedError):
        return None


def distinct(label: Tensor) -> Tensor:
    """Its different numbers, ascending."""
    found: Tensor = torch.unique(label)
    return found


def varies(label: Tensor, axis: int) -> bool:
    """Whether the labels differ along the axis."""
    if label.shape[axis] < 2 or label.stride(axis) == 0:
        return False
    return not torch.equal(
        label.narrow(axis, 1, label.shape[axis] - 1), label.narrow(axis, 0, label.shape[axis] - 1)
    )
