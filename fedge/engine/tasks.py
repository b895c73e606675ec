"""Call a function by name, in this process or in a Ray worker, and carry its result or its error as JSON.

Only text crosses, so the caller never loads what the function needs; and, where the caller wants to hear how far it is,
numbers, which the function hands to its argument `tell`.
"""

import importlib
import json
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedge.errors import FedgeError, RunError, UserError

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

Tell = Callable[[Sequence[int]], None]
"""Takes a few whole numbers that say how far a task is."""

_ERRORS: dict[str, type[FedgeError]] = {"UserError": UserError, "RunError": RunError}


def run_task(target: str, arguments: Mapping[str, JsonValue], tell: Tell | None = None) -> JsonValue:
    """Call `package.module:function(**arguments)` here; the same shape and errors as `RayCluster.run_task`."""
    return unpack(call(target, dict(arguments), tell))


def call(target: str, arguments: dict[str, JsonValue], tell: Tell | None = None) -> str:
    """Import and call the target; its result, or what went wrong, as a JSON text. Never raises an
    Exception.

    tell: a further argument of the target's, where it is given.
    """
    try:
        module, _, function = target.partition(":")
        told = {} if tell is None else {"tell": tell}
        result = getattr(importlib.import_module(module), function)(**arguments, **told)
        return json.dumps({"result": result})
    except FedgeError as error:
        kind = "UserError" if isinstance(error, UserError) else "RunError"
        return json.dumps({"error": kind, "message": str(error)})
    except Exception as error:
        if os.environ.get("FEDGE_DEBUG"):
            traceback.print_exc()
        return json.dumps({"error": "RunError", "message": f"{target} failed: {_described(error)}"})


def _described(error: Exception) -> str:
    """What was raised and where, in one line."""
    text = " ".join(str(error).split())[:300]
    frames = traceback.extract_tb(error.__traceback__)
    below_this = [frame for frame in frames if frame.filename != __file__]
    ours = [frame for frame in below_this if f"{os.sep}fedge{os.sep}" in frame.filename]
    where = (ours or below_this or frames)[-1]
    return f"{type(error).__name__}: {text} ({Path(where.filename).name}, line {where.lineno})"


def unpack(answer: str) -> JsonValue:
    """The result in an answer of `call`, or its error raised."""
    content = json.loads(answer)
    if "error" in content:
        raise _ERRORS[content["error"]](content["message"])
    result: JsonValue = content["result"]
    return result
