"""A grid that runs every device in this process, one message after another: for tests and for debugging."""

from collections import deque
from collections.abc import Sequence

from flwr.app import Error, RecordDict

from fedge.engine.base import FleetGrid
from fedge.engine.isolation.process import EndedWithoutReply, isolated
from fedge.engine.payload import unseal
from fedge.engine.programs.modules import TravelledModules
from fedge.engine.programs.program import answer, load
from fedge.engine.replies import Reason, failure
from fedge.engine.roster import ClientProgram, Member, NodeConfig, node_id_of


class InlineGrid(FleetGrid):
    """Runs messages in the order they were pushed; pickled on both ways, so nothing is shared by accident.

    It has no hosts, hence no resource requests, deadline or retries: a program that hangs or kills its
    process does so to the run, unless each message has a process of its own (`program.isolation`).
    `threads` bounds what the program's libraries use, as on a host. Raises
    UserError if the program does not load.
    """

    def __init__(
        self, program: ClientProgram, roster: Sequence[Member], run_config: NodeConfig, *, threads: int = 1
    ) -> None:
        super().__init__(roster)
        self._modules = TravelledModules(program.files)
        self._run_config = dict(run_config)
        self._isolated = isolated(program, self._run_config, threads)
        if self._isolated is None:
            self._modules.install()
            try:
                self._app = load(program, threads)
            except BaseException:
                self._modules.remove()
                raise
        self._queue: deque[tuple[int, bytes]] = deque()

    def _enqueue(self, client: int, packed: bytes) -> None:
        self._queue.append((client, packed))

    def _work(self, wait_s: float) -> bool:
        if not self._queue:
            return False
        client, packed = self._queue.popleft()
        node_config = dict(self.roster[client].node_config)
        self._deliver(packed, self._answered(client, packed, node_config))
        return True

    def _answered(self, client: int, packed: bytes, node_config: NodeConfig) -> RecordDict | Error:
        if self._isolated is None:
            return unseal(answer(self._app, packed, node_config, self._run_config))
        try:
            return unseal(self._isolated.answer(packed, node_id_of(client), node_config))
        except EndedWithoutReply:
            return failure(Reason.HOST_DIED)

    def close(self) -> None:
        """Drop what is still queued, and the program's own modules."""
        self._queue.clear()
        self._modules.remove()
        if self._isolated is not None:
            self._isolated.close()
