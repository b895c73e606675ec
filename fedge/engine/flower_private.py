"""Everything fedge needs of Flower that Flower does not promise to keep: in this file, and nowhere else.

`Run` is in the signature of the public `Grid`, but lives in a private module. `Message(...)` reads the
process-wide `TaskIdentity` (since Flower 1.38). Flower's own grids write a message's id in place when it is
pushed. A ClientApp does not say which mods it was made with.
"""

from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["RUN_ID", "SERVER_NODE_ID", "ErrorCode", "Run", "empty_run", "identify", "outermost_mod", "stamp"]

RUN_ID = 1
SERVER_NODE_ID = 0


def empty_run() -> Run:
    """A `Run` with an id and nothing else: our grids carry one run each."""
    return Run.create_empty(RUN_ID)


def identify(node_id: int) -> None:
    """Tell Flower who this process is (the server is 0); needed once before the process creates a message."""
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.node_id = node_id
    TaskIdentity.task_id = 0


def stamp(message: Message, message_id: str) -> None:
    """Give a pushed message its id, in place, as Flower's grids do."""
    message.metadata.__dict__["_message_id"] = message_id


def outermost_mod(app: ClientApp) -> str | None:
    """The mod that every message of the app's passes first and every reply last, as module:function."""
    mod = next(iter(app._mods), None)
    return f"{mod.__module__}:{getattr(mod, '__qualname__', type(mod).__qualname__)}" if mod else None
