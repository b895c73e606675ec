"""What happens on a host, in either grid: load the client program once, then answer one message after
another.
"""

import linecache
import os
import pickle
import sys
import traceback
from types import ModuleType

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedge.engine.flower_private import RUN_ID, outermost_mod
from fedge.engine.payload import seal
from fedge.engine.programs.modules import installed_only
from fedge.engine.replies import Reason, failure, raised
from fedge.engine.roster import THREAD_VARIABLES, ClientProgram, NodeConfig
from fedge.errors import UserError


def load(program: ClientProgram, threads: int) -> ClientApp:
    """Execute the program's source in a fresh module and return its `app`.

    The libraries it brings along use `threads` threads: the environment is set before they load, and torch,
    which reads it only once, is told again. Raises UserError if the program raises, defines no ClientApp, or
    leaves out its gate.
    """
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    module = _module(program)
    lines = program.source.splitlines(keepends=True)
    linecache.cache[program.name] = (
        len(program.source),
        None,
        lines,
        program.name,
    )  # tracebacks show its lines
    try:
        with installed_only():
            exec(compile(program.source, program.name, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise UserError(_load_failure(program, error)) from error
    app = getattr(module, "app", None)
    if not isinstance(app, ClientApp):
        got = "nothing of that name" if app is None else f"a {type(app).__name__}"
        raise UserError(
            f"client program '{program.name}' defines {got}: it must define `app = ClientApp(...)`"
        )
    if program.gate and outermost_mod(app) != program.gate:
        module_name, _, gate = program.gate.partition(":")
        raise UserError(
            f"client program '{program.name}' has no egress gate around it; write `app = ClientApp(mods=[{gate}])`, "
            f"the gate first of the mods, with `from {module_name} import {gate}`"
        )
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return app


def _module(program: ClientProgram) -> ModuleType:
    """A fresh module, registered, for dataclasses and pickle look a class's module up by name."""
    module = ModuleType(program.name if program.is_package else f"fedge_client_{program.name}")
    module.__file__ = program.name
    if program.is_package:
        module.__package__, module.__path__ = program.name, []
    sys.modules[module.__name__] = module
    return module


def _load_failure(program: ClientProgram, error: BaseException) -> str:
    """One line: no device is open while the program loads, so the exception's text is the user's own."""
    if isinstance(error, SyntaxError):
        line = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == program.name), None)
    text = " ".join(str(error).split())[:300]
    where = f" on line {line}" if line else ""
    return f"client program '{program.name}' does not load: {type(error).__name__}{where}: {text}"


def answer(app: ClientApp, packed: bytes, node_config: NodeConfig, run_config: NodeConfig) -> bytes:
    """Give one pickled message to the app; what it answers, a RecordDict or an Error, sealed.

    Only the payload goes back, and the grid addresses it, so that a program cannot answer for another device.
    Each message gets a context of its own; its `state` is empty and dropped afterwards, for what a device
    keeps is on the device's own storage. Whatever the program raises, `sys.exit` included, becomes an Error
    without its text.
    """
    try:
        message: Message = pickle.loads(packed)
        context = Context(RUN_ID, message.metadata.dst_node_id, node_config, RecordDict(), dict(run_config))
        with installed_only():
            reply = app(message, context)
        if not isinstance(reply, Message):
            payload = failure(Reason.NO_MESSAGE)
        else:
            payload = reply.error if reply.has_error() else reply.content
        return seal(payload)
    except (Exception, SystemExit) as error:
        return seal(raised(error))
