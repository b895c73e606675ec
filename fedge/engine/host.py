"""The process that devices of one class run in: a Ray actor that has loaded the client program.

The class is wrapped by `ray.remote` where it is used, not here, so that Ray sends its name rather than its
contents, and a host imports this module and what it needs, but none of the coordinator's.
"""

import os

from fedge.engine.flower_private import identify
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

    def start(self) -> Started:
        """Load the program."""
        try:
            TravelledModules(self._program.files).install()
            self._app = load(self._program, self._threads)
        except UserError as error:
            return os.getpid(), str(error)
        return os.getpid(), None

    def handle(self, packed: bytes, node_id: int, node_config: NodeConfig) -> bytes:
        """Answer one pickled message as the device `node_id`."""
        identify(node_id)
        return answer(self._app, packed, node_config, self._run_config)
