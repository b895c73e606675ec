"""The errors a grid answers with where a client gives no reply: a Flower code and a reason of a closed list.

An exception's own text and class name may hold a data value, so neither is sent: the reason is the name of
the nearest class that is built into Python ("ValueError" for any subclass of it).
"""

import builtins
from enum import StrEnum

from flwr.app import Error

from fedge.engine.flower_private import ErrorCode


class Reason(StrEnum):
    """Why there is no reply, where the client program did not raise."""

    HOST_DIED = "host_died"
    OUT_OF_MEMORY = "out_of_memory"
    DEADLINE = "deadline_exceeded"
    NO_MESSAGE = "handler_returned_no_message"
    NO_RECORDS = "reply_is_no_record"


_CODES = {
    Reason.HOST_DIED: ErrorCode.CLIENT_APP_CRASHED,
    Reason.OUT_OF_MEMORY: ErrorCode.CLIENT_APP_CRASHED,
    Reason.DEADLINE: ErrorCode.NODE_UNAVAILABLE,
    Reason.NO_MESSAGE: ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
    Reason.NO_RECORDS: ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
}


def failure(reason: Reason) -> Error:
    """The answer to a message whose handler or host gave none."""
    return Error(_CODES[reason], str(reason))


def raised(exception: BaseException) -> Error:
    """The answer to a message on which the client program raised: the nearest built-in class's name, no
    text.
    """
    names = (kind.__name__ for kind in type(exception).__mro__ if vars(builtins).get(kind.__name__) is kind)
    return Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, next(names))
