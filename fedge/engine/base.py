"""What both grids share: message ids, replies kept until they are pulled, the blocking `send_and_receive`."""

import pickle
import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence, Set
from types import TracebackType
from typing import Self

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fedge.engine.flower_private import SERVER_NODE_ID, Run, empty_run, identify, stamp
from fedge.engine.roster import Member, client_of, node_id_of
from fedge.errors import UserError

POLL_S = 0.5  # longest wait of one `pull_messages` for a reply
_GATHER_S = 0.05  # once there is a reply, what comes within this time is returned with it


class FleetGrid(Grid):
    """A Flower Grid over a roster of simulated devices. A context manager; `close` ends what it started.

    Every pushed message is answered exactly once, by a reply or by an Error. Subclasses enqueue messages and,
    in `_work`, move on and `_deliver` answers.
    """

    def __init__(self, roster: Sequence[Member]) -> None:
        identify(SERVER_NODE_ID)
        self.roster = roster
        self._run = empty_run()
        self._pushed = 0
        self._done: dict[str, Message] = {}

    def hears(self, payload: RecordDict | Error) -> None:
        """Called with every answer as it comes in, before anybody sees it. Does nothing; an audit listens here."""

    @abstractmethod
    def _enqueue(self, client: int, packed: bytes) -> None:
        """Take one stamped and pickled message for a client."""

    @abstractmethod
    def _work(self, wait_s: float) -> bool:
        """Move on for at most about `wait_s` (or one message); False if nothing is under way."""

    @abstractmethod
    def close(self) -> None:
        """End everything this grid started. May be called twice."""

    def _deliver(self, packed: bytes, payload: RecordDict | Error) -> None:
        """Keep the answer to a pickled message until it is pulled."""
        message = pickle.loads(packed)
        self.hears(payload)
        self._done[message.metadata.message_id] = Message(payload, reply_to=message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to (Flower's runtime calls this; here one grid is one run)."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message, as Flower's deprecated call does; `Message(...)` is the newer way."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The node ids of the whole roster, in client order."""
        return range(node_id_of(0), node_id_of(len(self.roster)))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue copies of messages for their devices; their ids, in order. UserError for an unknown node.

        The messages themselves are not kept, so from a generator ten thousand never exist at once.
        """
        ids = []
        for message in messages:
            client = client_of(message.metadata.dst_node_id)
            if not 0 <= client < len(self.roster):
                raise UserError(
                    f"node {message.metadata.dst_node_id} is not in the fleet: "
                    f"its nodes are 1 to {len(self.roster)} (client number plus one)"
                )
            self._pushed += 1
            stamp(message, f"{self._pushed:012d}")
            self._enqueue(client, pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies that have come for these ids and were not pulled before, in the order they came.

        Waits up to half a second for the first, so a loop over it neither spins nor sleeps too long. Give the
        ids as a set (or a dictionary's keys) and a call costs what it returns; any other iterable costs its
        length as well.
        """
        wanted = message_ids if isinstance(message_ids, Set) else set(message_ids)
        replies: list[Message] = []
        end_s = time.monotonic() + POLL_S
        while len(replies) < len(wanted):
            replies += self._take(wanted)
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not self._work(left_s):
                break
            if replies or not wanted.isdisjoint(self._done):
                end_s = min(end_s, time.monotonic() + _GATHER_S)
        return replies + self._take(wanted)

    def _take(self, wanted: Set[str]) -> list[Message]:
        return [self._done.pop(message_id) for message_id in list(self._done) if message_id in wanted]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, then wait until all are answered or `timeout` seconds have passed; replies in the messages'
        order.

        A message that has no reply by then stays under way, and its reply can still be pulled.
        """
        ids = self.push_messages(messages)
        waiting = set(ids)
        replies: dict[str, Message] = {}
        end_s = None if timeout is None else time.monotonic() + timeout
        while waiting and (end_s is None or time.monotonic() < end_s):
            for reply in self.pull_messages(waiting):
                message_id = reply.metadata.reply_to_message_id
                waiting.discard(message_id)
                replies[message_id] = reply
        return [replies[message_id] for message_id in ids if message_id in replies]
