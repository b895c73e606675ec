"""Call a function by name, in this process or in a Ray worker, and carry its result or its error as JSON.

Only text crosses, so the caller never loads what the function needs.
"""

import importlib
import json
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path

from fedge.errors import FedgeError, RunError, UserError

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

_ERRORS: dict[str, type[FedgeError]] = {"UserError": UserError, "RunError": RunError}


def run_task(
    target: str, arguments: Mapping[str, JsonValue], *, traceback_dir: str | None = None
) -> JsonValue:
    """Call `package.module:function(**arguments)` here; the same shape and errors as
    `RayCluster.run_task`.
    """
    return unpack(call(target, dict(arguments), traceback_dir))


def call(target: str, arguments: dict[str, JsonValue], traceback_dir: str | None) -> str:
    """Import and call the target; its result, or what went wrong, as a JSON text. Never raises an
    Exception.
    """
    try:
        module, _, function = target.partition(":")
        result = getattr(importlib.import_module(module), function)(**arguments)
        return json.dumps({"result": result})
    except FedgeError as error:
        kind = "UserError" if isinstance(error, UserError) else "RunError"
        return json.dumps({"error": kind, "message": str(error)})
    except Exception as error:
        where = _write_traceback(traceback_dir)
        return json.dumps(
            {"error": "RunError", "message": f"{target} raised {type(error).__name__}: see {where}"}
        )


def unpack(answer: str) -> JsonValue:
    """The result in an answer of `call`, or its error raised."""
    content = json.loads(answer)
    if "error" in content:
        raise _ERRORS[content["error"]](content["message"])
    return content["result"]


def _write_traceback(folder: str | None) -> Path:
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", prefix="fedge-traceback-", suffix=".txt", dir=folder, delete=False
    ) as file:
        traceback.print_exc(file=file)
    return Path(file.name)
