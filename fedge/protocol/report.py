"""RoundReport: what comes up from a device, one MetricRecord of counts and sums, each with its range.

Counts, not ratios, so that a fleet's figure is exact. Where a round failed, a Flower Error goes up instead and carries
a `Status` and nothing else.
"""

import math
from typing import Annotated

from flwr.app import Message, MetricRecord, RecordDict
from pydantic import BaseModel, ConfigDict, Field

from fedge.protocol.status import DeviceFailure, Status

REPORT = "report"  # the record's name in a message's content

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
    told_correct: Tally = 0  # the factory model told the classes of the client's training rows
    test_gained: Tally = 0  # test rows that the device's network gets right and the factory model wrong
    test_lost: Tally = 0  # the reverse; gained - lost = test_correct - factory_correct
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


def content_bytes(content: RecordDict) -> int:
    """Size of a message's records: names and values, as Flower counts them."""
    return sum(len(name) + record.count_bytes() for name, record in content.items())


def finite(loss: float) -> float:
    """A loss for a report: 0 where nothing was trained on; raises DeviceFailure where training diverged."""
    if math.isinf(loss) or loss > 1e6:
        raise DeviceFailure(Status.DIVERGED)
    return 0.0 if math.isnan(loss) else loss
