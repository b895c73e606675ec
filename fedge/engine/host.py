"""The process that devices of one class run in: a Ray actor that has loaded the client program.

The class is wrapped by `ray.remote` where it is used, not here, so that Ray sends its name rather than its
contents, and a host imports this module and what it needs, but none of the coordinator's.
"""

import os

from fedge.engine.flower_private import identify
from fedge.engine.isolation.process import EndedWithoutReply, IsolatedProgram, isolated
from fedge.engine.programs.modules import TravelledModules
from fedge.engine.programs.program import answer, load
from fedge.engine.roster import ClientProgram, NodeConfig
from fedge.errors import UserError

Started = tuple[int, str | None]
"""A host's process id, and in one line why its program does not load (None if it does)."""


class Host:
    """Holds the loaded program. Handles one message at a time and keeps nothing between two."""

    def __init__(self, program: ClientProgram, run_config: NodeConfig, threads: int) -> None:
        self._program = program
        self._run_config = run_config
        self._threads = threads
        self._isolated: IsolatedProgram | None = None

    def start(self) -> Started:
        """Load the program."""
        try:
            self._isolated = isolated(self._program, self._run_config, self._threads)
            if self._isolated is not None:
                return os.getpid(), None
            TravelledModules(self._program.files).install()
            self._app = load(self._program, self._threads)
        except UserError as error:
            return os.getpid(), str(error)
        return os.getpid(), None

    def handle(self, packed: bytes, node_id: int, node_config: NodeConfig) -> bytes:
        """Answer one pickled message as the device `node_id`.

        Where the message's own process ended without an answer this one ends too: the message is the grid's to retry.
        """
        if self._isolated is not None:
            try:
                return self._isolated.answer(packed, node_id, node_config)
            except EndedWithoutReply:
                os._exit(1)
        identify(node_id)
        return answer(self._app, packed, node_config, self._run_config)
