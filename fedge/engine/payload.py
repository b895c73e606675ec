"""What a device answers, on its way to the coordinator: opened there without running anything that came along.

A pickle may name any function for its reader to call. This one may name Flower's record classes and nothing else.
"""

import io
import pickle
from typing import Any

from flwr.app import Error, RecordDict

from fedge.engine.replies import Reason, failure

_NAMES = frozenset(
    (
        "RecordDict",
        "MetricRecord",
        "ConfigRecord",
        "ArrayRecord",
        "Array",
        "Error",
        "_check_key",
        "_check_value",
    )
)


class _RecordsOnly(pickle.Unpickler):
    """Loads Flower's records and plain values; raises UnpicklingError for anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("flwr.app.") and name in _NAMES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no record of Flower's")


def seal(payload: RecordDict | Error) -> bytes:
    """Pickle a payload, on the device's side."""
    return pickle.dumps(payload, protocol=pickle.HIGHEST_PROTOCOL)


def unseal(packed: bytes) -> RecordDict | Error:
    """The payload, on the coordinator's side; an Error in its place if it is anything but records."""
    try:
        payload = _RecordsOnly(io.BytesIO(packed)).load()
    except Exception:  # whatever a damaged or hostile pickle raises
        return failure(Reason.NO_RECORDS)
    return payload if isinstance(payload, RecordDict | Error) else failure(Reason.NO_RECORDS)
