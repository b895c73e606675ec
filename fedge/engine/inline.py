"""A grid that runs every device in this process, one message after another: for tests and for debugging."""

from collections import deque
from collections.abc import Sequence

from fedge.engine.base import FleetGrid
from fedge.engine.payload import unseal
from fedge.engine.programs.modules import TravelledModules
from fedge.engine.programs.program import answer, load
from fedge.engine.roster import ClientProgram, Member, NodeConfig


class InlineGrid(FleetGrid):
    """Runs messages in the order they were pushed; pickled on both ways, so nothing is shared by accident.

    It has no hosts, hence no resource requests, deadline or retries: a program that hangs or kills its
    process does so to the run. `threads` bounds what the program's libraries use, as on a host. Raises
    UserError if the program does not load.
    """

    def __init__(
        self, program: ClientProgram, roster: Sequence[Member], run_config: NodeConfig, *, threads: int = 1
    ) -> None:
        super().__init__(roster)
        self._modules = TravelledModules(program.files)
        self._modules.install()
        try:
            self._app = load(program, threads)
        except BaseException:
            self._modules.remove()
            raise
        self._run_config = dict(run_config)
        self._queue: deque[tuple[int, bytes]] = deque()

    def _enqueue(self, client: int, packed: bytes) -> None:
        self._queue.append((client, packed))

    def _work(self, wait_s: float) -> bool:
        if not self._queue:
            return False
        client, packed = self._queue.popleft()
        node_config = dict(self.roster[client].node_config)
        self._deliver(packed, unseal(answer(self._app, packed, node_config, self._run_config)))
        return True

    def close(self) -> None:
        """Drop what is still queued, and the program's own modules."""
        self._queue.clear()
        self._modules.remove()
