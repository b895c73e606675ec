"""Which message next: within a pool those that take longest go first, so that no long one begins when others end.

Longest processing time first (Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969): on
h hosts it ends within 4/3 - 1/(3h) of the shortest schedule; an arbitrary order within 2 - 1/h. What a message will
take is what its client's last one took; for a client that had none its work, at the pace of those that had. Results do
not depend on the order.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Job:
    """A message for a client, pickled when it was pushed; `attempts` counts the hosts that died under it."""

    client: int
    packed: bytes
    attempts: int = 0


class Durations:
    """Seconds that clients' messages take. work: how much each client's is, beside the others'; empty: all alike."""

    def __init__(self, work: Sequence[float] = ()) -> None:
        self._work = work
        self._took_s: dict[int, float] = {}
        self._all_s = self._all_work = 0.0

    def took(self, client: int, seconds: float) -> None:
        """Note how long a client's message took on its host."""
        self._all_s += seconds
        self._all_work += self._work_of(client)
        self._took_s[client] = seconds

    def expected_s(self, client: int) -> float:
        """Of a client's next message; before anybody's was answered, its work in place of seconds."""
        if client in self._took_s:
            return self._took_s[client]
        pace = self._all_s / self._all_work if self._all_work else 1.0
        return pace * self._work_of(client)

    def _work_of(self, client: int) -> float:
        return self._work[client] if client < len(self._work) else 1.0


class Waiting:
    """The messages of a pool that no host has yet: the longest first, of equals the one that came first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Job]] = []
        self._came = 0

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, job: Job, expected_s: float = math.inf) -> None:
        """Without a time: before all that have one, as a message must that a host died under."""
        heapq.heappush(self._heap, (-expected_s, self._came, job))
        self._came += 1

    def pop(self) -> Job:
        """The next one; IndexError where none waits."""
        return heapq.heappop(self._heap)[2]
