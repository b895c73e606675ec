"""The wire. RoundPlan goes down to a device, RoundReport comes up, or a Status where the round failed."""

from fedge.protocol.plan import PLAN, RoundPlan
from fedge.protocol.report import REPORT, TIMING_FIELDS, RoundReport, content_bytes, finite
from fedge.protocol.status import (
    EXPLAINED,
    FAILURE_CODE,
    KEEPS_STATE,
    DeviceFailure,
    Status,
    failure_reply,
    status_of,
)

__all__ = [
    "EXPLAINED",
    "FAILURE_CODE",
    "KEEPS_STATE",
    "PLAN",
    "REPORT",
    "TIMING_FIELDS",
    "DeviceFailure",
    "RoundPlan",
    "RoundReport",
    "Status",
    "content_bytes",
    "failure_reply",
    "finite",
    "status_of",
]
