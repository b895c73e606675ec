"""What one message's process may see, and who says so."""

from collections.abc import Mapping
from dataclasses import dataclass

NodeConfig = Mapping[str, int | float | str | bool]


@dataclass(frozen=True)
class Room:
    """Paths that a process may read, those that it may write as well, and the configuration that its program is shown.

    A folder stands for all that is in it. `home` is one of the writable ones: the process works there.
    """

    read: tuple[str, ...]
    write: tuple[str, ...]
    home: str
    node_config: NodeConfig


@dataclass(frozen=True)
class Isolation:
    """Asks that each message is answered in a process of its own, which sees a `Room`.

    All are named as module:function, since the host that calls them is another process.

    room      (node_config, run_config) -> Room; makes what the room names
    check     (message, payload, run_config, node_config) -> payload: what of the process's answer may go on. It runs
              outside, where the client program cannot reach it
    preload   modules that are imported once, outside, for all messages. None may be the client program's
    warm      (run_config) -> None, called once where they are imported; "": nothing
    """

    room: str
    check: str
    preload: tuple[str, ...] = ()
    warm: str = ""
