"""How a client's round ended, in a word of a closed list: all that a device may say of a failure."""

from enum import StrEnum

from flwr.app import Error, Message

FAILURE_CODE = 100  # Flower's own error codes are small numbers


class Status(StrEnum):
    """How a client's round ended. Everything a device may say of a failure is one of these words."""

    OK = "ok"
    # said by the device
    OFFLINE = "offline"
    BATTERY_LOW = "battery_low"
    DROPPED_OUT = "dropped_out"
    OUT_OF_MEMORY = "out_of_memory"
    DOES_NOT_FIT = "does_not_fit"
    DIVERGED = "diverged"
    NO_TRAINING_DATA = "no_training_data"
    CLIENT_RAISED = "client_raised"
    LOST_STATE = (
        "lost_state"  # what it kept of earlier rounds is gone, damaged, or older than its last report
    )
    BUDGET_SPENT = "budget_spent"  # it has told as much of its client as privacy.epsilon allows
    # said by the egress gate
    BLOCKED_RECORD = "blocked_record"
    BLOCKED_FIELD = "blocked_field"
    BLOCKED_TYPE = "blocked_type"
    BLOCKED_VALUE = "blocked_value"
    BLOCKED_SIZE = "blocked_size"
    # said by the engine
    HOST_DIED = "host_died"
    DEADLINE = "deadline_exceeded"
    # said by the coordinator
    LATE = "late"
    NO_REPLY = "no_reply"
    CORRUPT_REPORT = "corrupt_report"


EXPLAINED = frozenset(
    {
        Status.OUT_OF_MEMORY,
        Status.DOES_NOT_FIT,
        Status.DIVERGED,
        Status.NO_TRAINING_DATA,
        Status.CLIENT_RAISED,
    }
    | {status for status in Status if status.startswith("blocked_")}
)
"""Failures of a program or of a plan, rather than of fortune: the device's own errors.log says why."""


KEEPS_STATE = frozenset({Status.OK, Status.LATE, Status.DROPPED_OUT})
"""After a round that ended so, a device holds that round's state: what `RoundPlan.after` is taken from."""


class DeviceFailure(Exception):
    """Raised on a device to end its round with a status; the egress gate sends the status alone."""

    def __init__(self, status: Status, detail: str = "") -> None:
        super().__init__(detail or status.value)
        self.status = status


# Flower's codes for an app that raised and for one that crashed; the rest mean that no answer came.
_FLOWER_CODES = {2: Status.CLIENT_RAISED, 8: Status.HOST_DIED}


def failure_reply(status: Status, message: Message) -> Message:
    """The answer of a round that failed: an error that carries its status and nothing else."""
    return Message(Error(FAILURE_CODE, status.value), reply_to=message)


def status_of(reply: Message) -> Status:
    """A reply's status. An error's text counts only where it is a `Status`; it is never copied."""
    if not reply.has_error():
        return Status.OK
    try:
        return Status(reply.error.reason or "")
    except ValueError:
        return _FLOWER_CODES.get(reply.error.code, Status.NO_REPLY)
