"""The egress gate: what a device's message must be before it leaves.

Attach it outermost: `ClientApp(mods=[egress_gate])`. A reply leaves only when it holds one MetricRecord called
"report" whose fields and ranges are RoundReport's, in at most 4 KiB. Anything else - an array, bytes, text, an
unknown field, a NaN, a long list, an exception and its message - is replaced by a `Status` word.

`fedge run` refuses a program without it; Flower's own runtimes do not. It guards against mistakes and curious
programs; a program that wants to cheat can still hide bits in the allowed numbers. The run's egress.jsonl shows what
each message held.
"""

import contextlib
import traceback
from collections.abc import Callable

from flwr.app import Context, Message, MetricRecord
from pydantic import ValidationError

from fedge.errors import FedgeError
from fedge.protocol import REPORT, DeviceFailure, RoundReport, Status, content_bytes, failure_reply
from fedge.protocol.run_config import device_folder

MAX_BYTES = 4096

Handler = Callable[[Message, Context], Message]


def egress_gate(message: Message, context: Context, call_next: Handler) -> Message:
    """Flower client mod. Returns the reply rebuilt from its checked numbers, or a failure with its status."""
    try:
        reply = call_next(message, context)
        return _checked(reply).reply_to(message)
    except Exception as error:
        status = _status(error)
        _keep_on_device(context, status, error)
        return failure_reply(status, message)


def _status(error: Exception) -> Status:
    if isinstance(error, DeviceFailure):
        return error.status
    return Status.OUT_OF_MEMORY if isinstance(error, MemoryError) else Status.CLIENT_RAISED


def _checked(reply: object) -> RoundReport:
    """The reply's report, or DeviceFailure with what was wrong about it."""
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
        return RoundReport.model_validate(dict(records[REPORT]))
    except ValidationError as error:
        raise DeviceFailure(_reason(error), str(error)) from None


def _reason(error: ValidationError) -> Status:
    kinds = {problem["type"] for problem in error.errors()}
    if kinds & {"extra_forbidden", "missing"}:
        return Status.BLOCKED_FIELD
    return Status.BLOCKED_TYPE if any(kind.endswith("_type") for kind in kinds) else Status.BLOCKED_VALUE


def _keep_on_device(context: Context, status: Status, error: Exception) -> None:
    """Write the traceback where only the device's owner reads it; a device that cannot write goes without."""
    with contextlib.suppress(OSError, FedgeError):
        folder = device_folder(context)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "errors.log", "a", encoding="utf-8") as log:
            log.write(f"--- {status}\n{''.join(traceback.format_exception(error))}\n")
