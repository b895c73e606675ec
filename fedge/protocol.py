"""The only two payloads on the wire: RoundPlan goes down to a device, RoundReport comes up.

A plan is one JSON string in a ConfigRecord. A report is one MetricRecord of counts and sums, each with its
range; where a round failed, a Flower Error goes up instead and carries a `Status` and nothing else.
Counts, not ratios, so that a fleet's figure is exact.
"""

import math
from enum import StrEnum
from typing import Annotated, Literal, Self

from flwr.app import ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from pydantic import BaseModel, ConfigDict, Field

from fedge.fleet.faults import Fault
from fedge.scenario import Limits, Training

PLAN, REPORT = "plan", "report"  # record names in a message's content
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


class DeviceFailure(Exception):
    """Raised on a device to end its round with a status; the egress gate sends the status alone."""

    def __init__(self, status: Status, detail: str = "") -> None:
        super().__init__(detail or status.value)
        self.status = status


Phase = Literal["hello", "finetune", "retrain", "train"]  # hello: say which client you are and do nothing


class RoundPlan(BaseModel):
    """What one client is to do in one round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: Annotated[int, Field(ge=0)]  # 1-based; 0 for hello
    phase: Phase
    prune: bool  # be pruned to training.pruning.level: cut before training, unless cut already
    seed: int  # of the run; a device derives its own generators from (seed, client, round, purpose)
    training: Training
    limits: Limits = Limits()
    fault: Fault | None = None  # what goes wrong on purpose on this device in this round
    dropout: Annotated[float, Field(ge=0, le=1)] | None = None  # it goes away after this share of its work

    def to_message(self, node_id: int) -> Message:
        content = RecordDict({PLAN: ConfigRecord({"json": self.model_dump_json()})})
        return Message(content, node_id, MessageType.TRAIN, group_id=str(self.round))

    @classmethod
    def from_message(cls, message: Message) -> Self:
        return cls.model_validate_json(message.content[PLAN]["json"])


Tally = Annotated[int, Field(ge=0, le=10**9)]
Macs = Annotated[int, Field(ge=0, le=10**18)]
Loss = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class RoundReport(BaseModel):
    """What one client says of one round. This list of fields, with these ranges, is all that may leave."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    round: Tally
    client: Tally
    samples_seen: Tally = 0  # instances offered to training, over all local epochs
    samples_kept: Tally = 0  # of them, trained on
    macs_done: Macs = 0  # multiply-accumulates of training, the filter's and the pruner's own included
    macs_dense: Macs = 0  # plain SGD on every instance of the unpruned network
    macs_filter: Macs = 0
    bit_operations: Annotated[int, Field(ge=0, le=9 * 10**18)] = 0  # each product by the bits of its factors
    train_loss: Loss = 0.0  # mean over the instances kept; 0 when none was
    epoch_loss: Annotated[list[Loss], Field(max_length=64)] = []  # the same, per local epoch
    validation_correct: Tally = 0
    validation_count: Tally = 0
    test_correct: Tally = 0
    test_count: Tally = 0
    factory_correct: Tally = 0  # the untouched factory model on the same test data
    parameters: Tally = 0
    parameters_dense: Tally = 0
    level_tries: Tally = 0  # networks pruned in search of a level; with an accuracy target, retrained too
    batch_size: Tally = 0  # as used: smaller than planned where the device shrank it
    memory_bytes: Macs = 0  # peak training memory as used, estimated, overhead included
    memory_asked_bytes: Macs = 0  # the same as planned
    memory_limit_bytes: Macs = 0  # what the device has
    time_s: Amount = 0.0  # virtual
    energy_j: Amount = 0.0  # virtual
    wall_s: Amount = 0.0  # of the simulation, not of the device; differs from run to run

    def reply_to(self, message: Message) -> Message:
        return Message(RecordDict({REPORT: MetricRecord(self.model_dump())}), reply_to=message)


TIMING_FIELDS = ("wall_s",)  # the fields of a report that two equal runs may differ in


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
        return Status(reply.error.reason)
    except ValueError:
        return _FLOWER_CODES.get(reply.error.code, Status.NO_REPLY)


def content_bytes(content: RecordDict) -> int:
    """Size of a message's records: names and values, as Flower counts them."""
    return sum(len(name) + record.count_bytes() for name, record in content.items())


def finite(loss: float) -> float:
    """A loss for a report: 0 where nothing was trained on; raises DeviceFailure where training diverged."""
    if math.isinf(loss) or loss > 1e6:
        raise DeviceFailure(Status.DIVERGED)
    return 0.0 if math.isnan(loss) else loss
