"""The egress gate: whatever a client program tries to send, only a RoundReport's numbers or a Status word leave."""

import asyncio

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from fedge.engine.flower_private import SERVER_NODE_ID, identify
from fedge.privacy.egress import MAX_BYTES, egress_gate
from fedge.privacy.vouching import vouch
from fedge.protocol import REPORT, DeviceFailure, RoundPlan, RoundReport, Status, content_bytes, status_of
from fedge.scenario.training import Training

SECRET = "pixel-row-193.25"


@pytest.fixture
def message() -> Message:
    identify(SERVER_NODE_ID)
    return Message(RecordDict(), 1, "train", group_id="3")


def gate(
    message: Message,
    records: dict | None = None,
    error: BaseException | None = None,
    folder="",
    made: RoundReport | None = None,
) -> Message:
    """What leaves of a program that answers with `records`, where the device has made the report `made`."""

    def handler(message: Message, context: Context) -> Message:
        if error is not None:
            raise error
        if made is not None:
            vouch(made)
        return Message(RecordDict(records), reply_to=message)

    return egress_gate(message, Context(1, 1, {"device-dir": str(folder)}, RecordDict(), {}), handler)


def metrics(**changes) -> dict:
    return {REPORT: MetricRecord(RoundReport(round=3, client=5).model_dump(exclude={"own"}) | changes)}


def test_a_report_leaves_as_it_is(message: Message) -> None:
    """Breaks if an honest report is changed or refused."""
    made = RoundReport(
        round=3, client=5, test_correct=7, test_count=9, train_loss=0.5, epoch_loss=[0.75, 0.5]
    )
    reply = gate(message, made.content(), made=made)
    assert status_of(reply) is Status.OK
    assert RoundReport.model_validate(dict(reply.content[REPORT])) == made
    assert content_bytes(reply.content) < MAX_BYTES


def test_floats_leave_rounded_and_counts_do_not(message: Message) -> None:
    """Breaks if 52 bits of a float's fraction leave, or if a count, of which accuracy is made, is rounded."""
    made = RoundReport(round=3, client=5, test_correct=123_457, test_count=999_983, macs_done=10**17 + 1)
    made = made.model_copy(update={"train_loss": 0.123456789, "epoch_loss": [2 / 3], "time_s": 1234.56789})
    sent = gate(message, made.content(), made=made).content[REPORT]
    assert (sent["test_correct"], sent["test_count"], sent["macs_done"]) == (123_457, 999_983, 10**17 + 1)
    assert (sent["train_loss"], sent["epoch_loss"], sent["time_s"]) == (4045 / 32768, [171 / 256], 1234.5)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"train_loss": 193.25}, Status.BLOCKED_VALUE),
        ({"train_loss": 0.5 + 2**-30}, Status.OK),  # the same number once it is rounded
        ({"samples_seen": 193}, Status.BLOCKED_VALUE),
        ({"own.secret": 1.0}, Status.BLOCKED_FIELD),
    ],
)
def test_what_the_program_changes_on_the_way_out_is_stopped(message: Message, change: dict, status) -> None:
    """Breaks if a number that a program writes over the device's leaves with status ok."""
    made = RoundReport(round=3, client=5, train_loss=0.5)
    reply = gate(message, metrics(train_loss=0.5) | {REPORT: MetricRecord(dict(made.content()[REPORT]) | change)},
                 made=made)  # fmt: skip
    assert status_of(reply) is status


def test_a_report_of_the_programs_own_making_is_stopped(message: Message, tmp_path) -> None:
    """Breaks if a program without a device around it may fill every field as it likes, or is not told how to go on."""
    assert status_of(gate(message, metrics(train_loss=0.5), folder=tmp_path)) is Status.BLOCKED_RECORD
    assert "under @on_device" in (tmp_path / "errors.log").read_text()


def test_a_report_of_another_client_is_stopped(message: Message) -> None:
    """Breaks if a program gets the gate to send what it had a device of another client make."""
    made = RoundReport(round=3, client=5)

    def handler(message: Message, context: Context) -> Message:
        return vouch(made).reply_to(message)

    for own, status in ((5, Status.OK), (4, Status.BLOCKED_VALUE)):
        context = Context(1, 1, {"partition-id": own}, RecordDict(), {})
        assert status_of(egress_gate(message, context, handler)) is status


REFUSED = {
    "an array": ({"weights": ArrayRecord([np.ones(3)])}, Status.BLOCKED_RECORD),
    "an array called report": ({REPORT: ArrayRecord([np.ones(3)])}, Status.BLOCKED_RECORD),
    "an array beside the report": (metrics() | {"w": ArrayRecord([np.ones(3)])}, Status.BLOCKED_RECORD),
    "bytes": ({REPORT: ConfigRecord({"x": SECRET.encode()})}, Status.BLOCKED_RECORD),
    "a string": ({REPORT: ConfigRecord({"x": SECRET})}, Status.BLOCKED_RECORD),
    "nothing": ({}, Status.BLOCKED_RECORD),
    "a list of 10,000 floats": (metrics(epoch_loss=[0.5] * 10_000), Status.BLOCKED_SIZE),
    "a list of 4 floats": (metrics(epoch_loss=[0.5] * 4), Status.BLOCKED_VALUE),
    "a list for a number": (metrics(train_loss=[0.1, 0.2]), Status.BLOCKED_TYPE),
    "a 1 MB record": (metrics(epoch_loss=[0.5] * 131_072), Status.BLOCKED_SIZE),
    "an unknown field": (metrics(pixel_0=193.25), Status.BLOCKED_FIELD),
    "a thousand unknown fields": (metrics(**{f"pixel_{i}": 1.0 for i in range(1000)}), Status.BLOCKED_SIZE),
    "NaN": (metrics(train_loss=float("nan")), Status.BLOCKED_VALUE),
    "infinity": (metrics(train_loss=float("inf")), Status.BLOCKED_VALUE),
    "a negative count": (metrics(test_count=-1), Status.BLOCKED_VALUE),
    "a number out of range": (metrics(samples_seen=10**12), Status.BLOCKED_VALUE),
    "a fraction for a count": (metrics(test_count=0.5), Status.BLOCKED_TYPE),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_a_report_becomes_a_status(message: Message, what: str) -> None:
    """Breaks if any of these leaves: the reply must hold one Status word and no record."""
    records, status = REFUSED[what]
    reply = gate(message, records)
    assert not reply.has_content()
    assert reply.error.reason == status.value


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError(f"cannot normalise {SECRET}"), Status.CLIENT_RAISED),
        (MemoryError(SECRET), Status.OUT_OF_MEMORY),
        (DeviceFailure(Status.DIVERGED, SECRET), Status.DIVERGED),
        (KeyError(SECRET), Status.CLIENT_RAISED),
    ],
)
def test_an_exception_leaves_as_its_status_and_stays_on_the_device(message, error, status, tmp_path) -> None:
    """Breaks if an exception's text or class crosses the gate, or if the device's owner cannot read it."""
    reply = gate(message, error=error, folder=tmp_path)
    assert reply.error.reason == status.value
    assert SECRET not in repr(reply)
    assert SECRET in (tmp_path / "errors.log").read_text()


@pytest.mark.parametrize(
    "error", [SystemExit(1), SystemExit(SECRET), GeneratorExit(SECRET), asyncio.CancelledError()]
)
def test_leaving_the_program_is_a_failure_with_a_log(message, error, tmp_path) -> None:
    """Breaks if sys.exit in a client program ends the run, or leaves no log where the run says to look for one."""
    reply = gate(message, error=error, folder=tmp_path)
    assert reply.error.reason == Status.CLIENT_RAISED.value and SECRET not in repr(reply)
    assert type(error).__name__ in (tmp_path / "errors.log").read_text()


def test_a_persons_interrupt_is_not_the_devices_failure(message, tmp_path) -> None:
    """Breaks if Ctrl-C inside a device's training is taken for an error of the client's, and the run goes on."""
    with pytest.raises(KeyboardInterrupt):
        gate(message, error=KeyboardInterrupt(), folder=tmp_path)
    assert not (tmp_path / "errors.log").exists()


def test_the_logs_of_a_device_are_its_owners_alone(message, tmp_path) -> None:
    """Breaks if tracebacks, which hold what a program put into its exceptions, can be read by other users."""
    (tmp_path / "errors.log").write_text("of an older version\n")
    (tmp_path / "errors.log").chmod(0o644)
    gate(message, error=ValueError(SECRET), folder=tmp_path)
    assert (tmp_path / "errors.log").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "errors.log").read_text().startswith("of an older version")


@pytest.mark.parametrize(("entries", "status"), [(0, Status.OK), (2, Status.OK), (3, Status.BLOCKED_VALUE)])
def test_a_report_has_a_loss_per_planned_epoch_at_most(entries: int, status: Status) -> None:
    """Breaks if epoch_loss may hold free numbers: 64 pixels of a picture would leave in one report."""
    identify(SERVER_NODE_ID)
    training = Training(epochs=2)
    plan = RoundPlan(round=3, phase="train", prune=False, training=training).to_message(1)
    made = RoundReport(round=3, client=5, epoch_loss=[0.5] * entries)
    assert status_of(gate(plan, made.content(), made=made)) is status


@pytest.mark.parametrize(
    ("serve", "said", "status"),
    [
        ("last", None, Status.OK),
        ("last", 2, Status.BLOCKED_FIELD),
        ("best", 2, Status.OK),
        ("never_worse", 0, Status.OK),
        ("best", 4, Status.BLOCKED_FIELD),
    ],
)
def test_which_network_serves_leaves_where_it_was_asked_for(
    serve: str, said: int | None, status: Status
) -> None:
    """Breaks if a word more than `bits_at_most` says can leave, or a network serves that there never was."""
    identify(SERVER_NODE_ID)
    training = Training(serve=serve)
    plan = RoundPlan(round=3, phase="train", prune=False, training=training).to_message(1)
    made = RoundReport(round=3, client=5, served=said)
    assert status_of(gate(plan, made.content(), made=made)) is status


def test_a_handler_that_returns_no_message_is_refused(message: Message) -> None:
    """Breaks if a program's None reaches Flower, which would drop the reply and leave the coordinator waiting."""
    context = Context(1, 1, {}, RecordDict(), {})
    reply = egress_gate(message, context, lambda message, context: None)
    assert reply.error.reason == Status.CLIENT_RAISED.value


def test_metadata_comes_from_the_plan_and_not_from_the_program(message: Message) -> None:
    """Breaks if text can be hidden in a reply's metadata: the gate builds the reply itself."""

    def handler(message: Message, context: Context) -> Message:
        reply = vouch(RoundReport(round=3, client=5)).reply_to(message)
        reply.metadata.message_type = "train"
        reply.metadata.__dict__["_group_id"] = SECRET
        return reply

    reply = egress_gate(message, Context(1, 1, {}, RecordDict(), {}), handler)
    assert status_of(reply) is Status.OK and SECRET not in repr(reply)
