"""How far a task in a Ray worker is: the latest few whole numbers that it told of, on any node of the cluster.

They lie in Ray's own key-value store, packed as eight-byte integers, so that nothing else could pass. That store is
behind Ray's experimental names, which stand in this file and nowhere else. What cannot be told is not told: progress
never fails a task.
"""

import struct
import uuid
from collections.abc import Sequence
from contextlib import suppress

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

Numbers = tuple[int, ...]

_NAMESPACE = "fedge"
_MOST = 8  # numbers


class Mailbox:
    """Holds the latest numbers. Only its name travels to a worker."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or f"progress-{uuid.uuid4().hex}"

    def put(self, numbers: Sequence[int]) -> None:
        """Replace what lies there."""
        with suppress(Exception):
            packed = struct.pack(f"<{min(len(numbers), _MOST)}q", *numbers[:_MOST])
            _internal_kv_put(self.name, packed, overwrite=True, namespace=_NAMESPACE)

    def get(self) -> Numbers | None:
        """What lies there; None where nothing does, or nothing of this form."""
        with suppress(Exception):
            packed = _internal_kv_get(self.name, namespace=_NAMESPACE)
            if packed is not None and len(packed) <= 8 * _MOST:
                return struct.unpack(f"<{len(packed) // 8}q", packed)
        return None

    def remove(self) -> None:
        """Leave nothing in the cluster."""
        with suppress(Exception):
            _internal_kv_del(self.name, namespace=_NAMESPACE)
