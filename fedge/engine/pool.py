"""The books of the Ray grid: a host, and a pool of hosts with its waiting messages."""

from dataclasses import dataclass, field
from typing import Literal

from ray.actor import ActorHandle

from fedge.engine.host import Host
from fedge.engine.roster import HostRequest
from fedge.engine.waiting import Waiting

EventKind = Literal["host_started", "host_released", "host_died", "deadline_exceeded"]


@dataclass(frozen=True)
class HostEvent:
    """Something that happened to a host. `client`: whose message it held; `pid`: 0 before it has started."""

    kind: EventKind
    device_class: str
    node_id: str
    pid: int
    client: int | None = None


@dataclass(eq=False)
class HostHandle:
    """A Ray actor, the Ray node its share is booked on, and the process it runs in."""

    actor: ActorHandle[Host]
    node_id: str
    pid: int = 0


@dataclass(eq=False)
class Pool:
    """The hosts of one device class (on one node, where device state is bound to nodes) and its waiting
    messages.
    """

    device_class: str
    request: HostRequest
    limit: int
    only_node: str | None = None
    queue: Waiting = field(default_factory=Waiting)
    hosts: set[HostHandle] = field(default_factory=set)
    idle: list[HostHandle] = field(default_factory=list)
    starting: int = 0
    failed_starts: int = 0

    @property
    def wants_host(self) -> bool:
        """True if another host would find a message that no starting host is going to take."""
        return len(self.queue) > self.starting and len(self.hosts) < self.limit

    @property
    def starves(self) -> bool:
        """True if messages wait and no host of this pool exists to take them, not even a starting one."""
        return bool(self.queue) and not self.hosts
