"""RoundReport: what comes up from a device, one MetricRecord of counts and sums, each with its range.

Counts, not ratios, so that a fleet's figure is exact. Where a round failed, a Flower Error goes up instead and carries
a `Status` and nothing else.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

from flwr.app import Message, MetricRecord, RecordDict
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from fedge.catalog.names import CRITERIA, FILTERS, LOSSES, SCORES, WHAT
from fedge.protocol.figures import apart, prefixed
from fedge.protocol.rounding import COARSE, FINE
from fedge.protocol.status import DeviceFailure, Status

REPORT = "report"  # the record's name in a message's content

Tally = Annotated[int, Field(ge=0, le=10**9)]
Macs = Annotated[int, Field(ge=0, le=10**18)]
Loss = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False), AfterValidator(FINE)]
CurveLoss = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False), AfterValidator(COARSE)]
Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False), AfterValidator(FINE)]
Number = Annotated[float, Field(allow_inf_nan=False)]

NONE, OWN = "none", "own"  # nothing of the kind ran; something of the program's own did
ELEMENT, SAMPLED = "element", "sampled"  # numbers of error maps were drawn at random; pixels or maps were
CONTRAST = "nt_xent"  # the loss of training.contrast
LAYERS = "layers"  # those that the settings name were trained
MOST_EPOCHS = 3  # whose losses are reported
MOST_EXITS = 9  # of a network, the last among them
MOST_ALARMS = 15  # that are told of in a round


WORDS: dict[str, tuple[str, ...]] = {
    "criterion": (NONE, OWN, *CRITERIA),
    "instance_filter": (NONE, OWN, *(name for name in FILTERS if name != NONE)),
    "error_maps": (NONE, OWN, *SCORES, ELEMENT, SAMPLED),  # eight words, as many as fit 3 bits
    "optimizer": (NONE, OWN, "sgd", "adam", "adamw"),
    "what": (NONE, OWN, *WHAT, LAYERS),
    "loss": (NONE, OWN, *(kind for kinds in LOSSES.values() for kind in kinds), CONTRAST),
}
"""The fields that are a word of a closed list. A MetricRecord carries numbers: the word's place in its list."""


class RoundReport(BaseModel):
    """What one client says of one round. This list of fields, with these ranges, is all that may leave.

    Floats are rounded (fedge.protocol.rounding), counts are not: what is derived of them is exact.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    round: Tally
    client: Tally
    samples_seen: Tally = 0  # instances offered to training, over all local epochs
    samples_kept: Tally = 0  # of them, trained on
    macs_done: Macs = 0  # multiply-accumulates of training, the filter's and the pruner's own included
    macs_dense: Macs = 0  # plain SGD on every instance of the unpruned network
    macs_filter: Macs = 0
    bit_operations: Annotated[int, Field(ge=0, le=9 * 10**18)] = 0  # each product by the bits of its factors
    # mean over the instances kept; 0 when none was. None, and not sent: where these are too few to be told of
    train_loss: Loss | None = None
    # the same of a local epoch: of each that ran, or of MOST_EPOCHS of them from the first to the last; the gate holds
    # its length against the plan's
    epoch_loss: Annotated[list[CurveLoss], Field(max_length=MOST_EPOCHS)] = []
    validation_correct: Tally = 0
    validation_count: Tally = 0
    test_correct: Tally = 0
    test_count: Tally = 0
    factory_correct: Tally = 0  # the untouched factory model on the same test data
    told_correct: Tally = 0  # the factory model told the classes of the client's training rows
    test_gained: Tally = 0  # test rows that the device's network gets right and the factory model wrong
    test_lost: Tally = 0  # the reverse; gained - lost = test_correct - factory_correct
    parameters: Tally = 0  # of the network that serves
    parameters_dense: Tally = 0
    level_tries: Tally = 0  # networks pruned in search of a level; with an accuracy target, retrained too
    batch_size: Tally = 0  # as used: smaller than planned where the device shrank it
    memory_bytes: Macs = 0  # peak training memory as used, estimated, overhead included
    memory_asked_bytes: Macs = 0  # the same as planned
    memory_limit_bytes: Macs = 0  # what the device has
    # what really ran, as places in WORDS, whatever the scenario says
    criterion: Annotated[int, Field(ge=0, lt=len(WORDS["criterion"]))] = 0  # that channels were ranked by
    instance_filter: Annotated[int, Field(ge=0, lt=len(WORDS["instance_filter"]))] = 0
    error_maps: Annotated[int, Field(ge=0, lt=len(WORDS["error_maps"]))] = (
        0  # the score that they were pruned by
    )
    optimizer: Annotated[int, Field(ge=0, lt=len(WORDS["optimizer"]))] = 0
    what: Annotated[int, Field(ge=0, lt=len(WORDS["what"]))] = 0
    # None, and not sent: where a network tells one class and was trained by the cross-entropy
    loss: Annotated[int, Field(ge=0, lt=len(WORDS["loss"]))] | None = None
    decisions: Annotated[int, Field(ge=1, le=10**6)] | None = None  # per sample: its labels; None: one
    validation_error_sum: Amount | None = (
        None  # of task numbers: the samples' mean absolute errors, in y's unit
    )
    test_error_sum: Amount | None = None
    factory_error_sum: Amount | None = None  # the untouched factory model's on the same test data
    # of labels and numbers: test samples that are answered better than by the factory model, and worse
    test_better: Tally | None = None
    test_worse: Tally | None = None
    # None, and not sent, where the last round's network serves: the round whose network does; 0: the factory model
    served: Tally | None = None
    # of a stream, frames since the device's last round; None, and not sent, where the data do not come in one
    arrived: Tally | None = None  # held-out frames are not counted
    labelled: Tally | None = None  # of them, those that ever get a label
    stored: Tally | None = None  # frames in memory when the round begins
    trained: Tally | None = None  # of them, those that were trained on for the first time
    ttt_correct: Tally | None = None  # test-then-train: tested before they may be trained on
    ttt_count: Tally | None = None
    blind_correct: Tally | None = None  # on the same frames, by repeating the last label
    future_correct: Tally | None = None  # held-out frames of the next intervals, after training
    future_count: Tally | None = None
    past_correct: Tally | None = None  # held-out frames of the first intervals, after training
    past_count: Tally | None = None
    # of early exits, each list with an entry per exit, the last one last (fedge.device.early_exits.figures); None, and
    # not sent, where there are none
    exit_left: Annotated[list[Tally], Field(max_length=MOST_EXITS)] | None = None
    exit_right: Annotated[list[Tally], Field(max_length=MOST_EXITS)] | None = None
    exit_alone: Annotated[list[Tally], Field(max_length=MOST_EXITS)] | None = None
    exit_macs: Annotated[list[Macs], Field(max_length=MOST_EXITS)] | None = None
    trunk_macs: Macs | None = None
    answer_s: Amount | None = None
    answer_worst_s: Amount | None = None
    # of a drift detector: how often the device's errors changed for the worse; None, and not sent, where there is none
    alarms: Annotated[int, Field(ge=0, le=MOST_ALARMS)] | None = None
    time_s: Amount = 0.0  # virtual: down, compute, up
    down_s: Amount = 0.0  # of it, until the plan was there
    up_s: Amount = 0.0  # of it, to send this report; compute is time_s - down_s - up_s
    energy_j: Amount = 0.0  # virtual
    wall_s: Amount = 0.0  # of the simulation, not of the device; differs from run to run
    own: dict[
        str, Number
    ] = {}  # figures of the program's own, as the scenario's [report.figures] declare them

    @model_serializer(mode="wrap")
    def _what_is_said(self, fields_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields without those that are None: a message holds no such value."""
        fields: dict[str, Any] = fields_of(self)
        return {name: value for name, value in fields.items() if value is not None}

    def content(self) -> RecordDict:
        """What a message of it holds. Wrong values are told by the gate, not by a warning here."""
        fields = self.model_dump(warnings=False, exclude={"own"})
        return RecordDict({REPORT: MetricRecord(fields | prefixed(self.own))})

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The report in a message's record; ValidationError where it is none. Figures are not held against anything."""
        fields, own = apart(record)
        return cls.model_validate(fields | ({"own": own} if own else {}))

    def reply_to(self, message: Message) -> Message:
        return Message(self.content(), reply_to=message)

    def word(self, field: str) -> str:
        """What a field of WORDS says."""
        place: int | None = getattr(self, field)
        return NONE if place is None else WORDS[field][place]

    def row(self) -> dict[str, Any]:
        """The fields as results show them: words for their places; without whose report of which round it is.

        What says nothing of the data's task is left out: a client cannot be told the classes where there are none.
        """
        fields = self.model_dump(exclude={"round", "client", "own"})
        if self.test_better is not None:
            del fields["told_correct"]
        return fields | prefixed(self.own) | {field: self.word(field) for field in WORDS if field in fields}

    @classmethod
    def from_json(cls, text: str | None) -> Self | None:
        """A report as a device has kept it; None where there is none, or none that could leave any more."""
        try:
            return cls.model_validate_json(text) if text else None
        except ValidationError:
            return None


def coded(**words: str) -> dict[str, Any]:
    """Words for a report's fields, as places in WORDS; a name that is not there is somebody's own."""
    return {field: WORDS[field].index(word if word in WORDS[field] else OWN) for field, word in words.items()}


def one_word(words: Iterable[str]) -> str:
    """The word for all that ran of a kind: no one name says it where there were several."""
    ran = set(words) - {NONE}
    return ran.pop() if len(ran) == 1 else OWN if ran else NONE


STREAM_FIELDS = (
    "arrived", "labelled", "stored", "trained", "ttt_correct", "ttt_count", "blind_correct",
    "future_correct", "future_count", "past_correct", "past_count",
)  # fmt: skip
"""The fields of a report that only a scenario with `[data.stream]` has."""

EXIT_FIELDS = (
    "exit_left", "exit_right", "exit_alone", "exit_macs", "trunk_macs", "answer_s", "answer_worst_s",
)  # fmt: skip
"""The fields of a report that only a scenario with `[training.exits]` has."""

TIMING_FIELDS = ("wall_s",)  # the fields of a report that two equal runs may differ in


def content_bytes(content: RecordDict) -> int:
    """Size of a message's records: names and values, as Flower counts them."""
    return sum(len(name) + record.count_bytes() for name, record in content.items())


def finite(loss: float) -> float:
    """A loss for a report: 0 where nothing was trained on; raises DeviceFailure where training diverged."""
    if math.isinf(loss) or loss > 1e6:
        raise DeviceFailure(Status.DIVERGED)
    return 0.0 if math.isnan(loss) else loss
