"""The egress gate: what a device's message must be before it leaves.

Attach it outermost: `ClientApp(mods=[egress_gate])`. A reply leaves only when it holds one MetricRecord called
"report" whose fields and ranges are RoundReport's, and whose figures of the program's own are those that the scenario
declares (`[report.figures]`), rounded, in at most 4 KiB; and when it is the report that fedge's device made of this
message (vouching.py). Anything else - an array, bytes, text, an unknown field, a NaN, a long list, a number that the
program put there, an exception and its message - is replaced by a `Status` word.

Where `[privacy]` keeps reports from the coordinator, two shares or noised figures of the report leave in its place
(leaving.py). `fedge run` refuses a program without the gate; Flower's own runtimes do not. It guards against mistakes
and curious programs; one that wants to cheat can still choose the bits that fedge.protocol.budget counts. The run's
egress.jsonl shows what each message held. What the device prints stays with it (output.py).
"""

import contextlib
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from flwr.app import Context, Message, MetricRecord
from pydantic import ValidationError

from fedge.errors import FedgeError
from fedge.privacy.leaving import leaving
from fedge.privacy.output import open_private, printing_into
from fedge.privacy.vouching import vouching
from fedge.protocol import (
    PLAN,
    REPORT,
    DeviceFailure,
    RoundPlan,
    RoundReport,
    Status,
    content_bytes,
    failure_reply,
)
from fedge.protocol.figures import Figures, require_declared
from fedge.protocol.run_config import device_folder, scenario_of
from fedge.scenario.schema import Scenario

MAX_BYTES = 4096

Handler = Callable[[Message, Context], Message]


def egress_gate(message: Message, context: Context, call_next: Handler) -> Message:
    """Flower client mod. Returns the reply rebuilt from its checked numbers, or a failure with its status.

    What the device prints meanwhile is appended to its own output.log, a failure's traceback to its errors.log.
    A program that leaves by `sys.exit` has failed like any other; only the person's own Ctrl-C passes.
    """
    folder = _own_folder(context)
    with printing_into(folder and folder / "output.log"):
        try:
            scenario, client = _scenario(context), context.node_config.get("partition-id")
            figures = scenario.report.figures if scenario else {}
            with vouching() as made:
                reply = call_next(message, context)
            report = _made_by_device(checked_report(reply, message, figures), made, client)
            if (
                scenario is None or scenario.privacy.isolation == "client"
            ):  # what leaves is decided outside then
                return report.reply_to(message)
            return Message(leaving(report, message, scenario, folder), reply_to=message)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            status = _status(error)
            _keep_on_device(folder, status, error)
            return failure_reply(status, message)


def checked_report(reply: object, message: Message, figures: Figures) -> RoundReport:
    """The report in a reply to `message`, or DeviceFailure with what was wrong about it.

    figures: of the program's own, that it holds; the answer to "hello" holds none.
    """
    if not isinstance(reply, Message) or reply.has_error():
        raise DeviceFailure(Status.CLIENT_RAISED, "the client program returned no report")
    records = dict(reply.content.items())
    if list(records) != [REPORT] or not isinstance(records[REPORT], MetricRecord):
        raise DeviceFailure(
            Status.BLOCKED_RECORD, f"a reply holds one MetricRecord {REPORT!r} and nothing else"
        )
    if content_bytes(reply.content) > MAX_BYTES:
        raise DeviceFailure(Status.BLOCKED_SIZE, f"the report is larger than {MAX_BYTES} bytes")
    try:
        report = RoundReport.from_record(records[REPORT])
    except ValidationError as error:
        raise DeviceFailure(_reason(error), str(error)) from None
    plan = RoundPlan.from_message(message) if PLAN in message.content else None
    require_declared(report.own, {} if plan and plan.phase == "hello" else figures)
    if plan:
        _require_planned(report, plan)
        _require_planned_serving(report, plan.training.serve)
    return report


def _made_by_device(report: RoundReport, made: Sequence[RoundReport], client: object) -> RoundReport:
    """`report`, if it is what the device said last in this message; DeviceFailure if a program made or changed it."""
    if not made:
        raise DeviceFailure(
            Status.BLOCKED_RECORD,
            "the report was not made by the device: handle the message by a function under @on_device "
            "(fedge.device.handler) and return its reply",
        )
    its_own = RoundReport.from_record(made[-1].content()[REPORT])  # rounded, as it is once it has left
    if report != its_own:
        fields, said = its_own.model_dump(), report.model_dump()
        changed = sorted(name for name in fields | said if fields.get(name) != said.get(name))
        raise DeviceFailure(
            Status.BLOCKED_VALUE,
            f"the report is not as the device made it: {', '.join(changed)} was changed on the way out",
        )
    if client is not None and report.client != client:
        raise DeviceFailure(
            Status.BLOCKED_VALUE, f"the report is client {report.client}'s and this is client {client}"
        )
    return report


def _require_planned(report: RoundReport, plan: RoundPlan) -> None:
    """Of the planned round; and its list, which would be room for anything, has an entry per local epoch at most."""
    if report.round != plan.round:
        raise DeviceFailure(
            Status.BLOCKED_VALUE, f"the report is of round {report.round}, the plan of {plan.round}"
        )
    if len(report.epoch_loss) > plan.training.epochs:
        raise DeviceFailure(
            Status.BLOCKED_VALUE,
            f"epoch_loss has {len(report.epoch_loss)} entries, training.epochs is {plan.training.epochs}: one per "
            "epoch that ran",
        )


def _require_planned_serving(report: RoundReport, planned: str) -> None:
    """Which network serves is said where it was asked for, and is one that there has been."""
    if report.served is None:
        return
    if planned == "last" or report.served > report.round:
        raise DeviceFailure(
            Status.BLOCKED_FIELD,
            f"the report says that the network of round {report.served} serves; the plan of round {report.round} asks "
            f"for training.serve = {planned!r}",
        )


def _status(error: BaseException) -> Status:
    if isinstance(error, DeviceFailure):
        return error.status
    return Status.OUT_OF_MEMORY if isinstance(error, MemoryError) else Status.CLIENT_RAISED


def _reason(error: ValidationError) -> Status:
    kinds = {problem["type"] for problem in error.errors()}
    if kinds & {"extra_forbidden", "missing"}:
        return Status.BLOCKED_FIELD
    return Status.BLOCKED_TYPE if any(kind.endswith("_type") for kind in kinds) else Status.BLOCKED_VALUE


def _scenario(context: Context) -> Scenario | None:
    """None where the run's configuration names no scenario."""
    with contextlib.suppress(OSError, FedgeError, KeyError):
        return scenario_of(context.run_config)
    return None


def _own_folder(context: Context) -> Path | None:
    """The device's folder; None where the run's configuration does not tell."""
    with contextlib.suppress(OSError, FedgeError, KeyError):
        return device_folder(context)
    return None


def _keep_on_device(folder: Path | None, status: Status, error: BaseException) -> None:
    """Write the traceback where only the device's owner reads it; a device that cannot write goes without."""
    if folder is None:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with os.fdopen(open_private(folder / "errors.log"), "a", encoding="utf-8") as log:
            log.write(f"--- {status}\n{''.join(traceback.format_exception(error))}\n")
