"""A grid that runs devices on Ray: per device class a pool of hosts with that class's share of the machine.

How a message travels:

    push_messages -> the queue of its device class -> an idle host, the longest message first -> the reply
                              |                      |
              no idle host: start one       host died: replace it and try the message again, at most
              where it fits                 `retries` times; host hung: kill it and answer with an Error

If the classes do not fit the cluster all at once they take turns: a host that is idle, and whose class has
nothing waiting, is released when another class has messages but no host.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fedge.engine.base import FleetGrid
from fedge.engine.cluster import RayCluster
from fedge.engine.host import Host, Started
from fedge.engine.payload import unseal
from fedge.engine.placement import Placement
from fedge.engine.pool import EventKind, HostEvent, HostHandle, Pool
from fedge.engine.replies import Reason, failure
from fedge.engine.roster import ClientProgram, HostRequest, Member, NodeConfig, node_id_of
from fedge.engine.waiting import Durations, Job
from fedge.errors import RunError, UserError

_LOOK_S = 2.0  # between two looks at which nodes there are
_START_LIMIT_S = 300.0  # a host not up by then waits for others' resources, or its program hangs
_SHUN_S = (
    30.0  # a node on which a host died while starting is left alone: Ray may not have noticed that it is gone
)
_START_ATTEMPTS = 3  # hosts of a class that may die while starting before the run is given up


class RayGrid(FleetGrid):
    """Carries messages to hosts on a Ray cluster; every message is answered exactly once.

    requests         per device class of the roster, what one host takes. A class that fits on no node is a
                     UserError before anything starts.
    cluster          where to run (None: a Ray of the grid's own, ended by `close`)
    hosts_per_class  the most hosts of a class (None: one, and more while there are fewer hosts than CPUs)
    deadline_s       wall-clock seconds a host may spend on one message (None: no limit)
    retries          how often the message of a dead host is given to a fresh one
    threads          what the client program's libraries may use in a host
    sticky           bind each client to one node, for device state on local disks
    work             how much each client's first message is, beside the others' (waiting.py); empty: not known
    on_event         told when hosts start, end or die
    notice           told in a line when a node joins the cluster, or leaves it

    Nodes may come and go while messages are under way: one that joins gets hosts, and the messages of one that is lost
    are tried again elsewhere. With `sticky` clients stay on the nodes that the grid began with.
    """

    def __init__(
        self,
        program: ClientProgram,
        roster: Sequence[Member],
        requests: Mapping[str, HostRequest],
        run_config: NodeConfig,
        *,
        cluster: RayCluster | None = None,
        hosts_per_class: int | None = None,
        deadline_s: float | None = None,
        retries: int = 2,
        threads: int = 1,
        sticky: bool = False,
        work: Sequence[float] = (),
        on_event: Callable[[HostEvent], None] | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(roster)
        self._own_cluster: RayCluster | None = None
        if cluster is None:
            cluster = self._own_cluster = RayCluster()
        self._cluster = cluster
        self._placement = Placement(self._cluster.nodes())
        self._program_arguments = (program, dict(run_config), threads)
        self._requests = dict(requests)
        self._hosts_per_class = hosts_per_class
        self._deadline_s = deadline_s
        self._retries = retries
        self._sticky = sticky
        self._durations = Durations(work)
        self._on_event = on_event or (lambda event: None)
        self._notice = notice or (lambda text: None)
        self._look_at_s = time.monotonic() + _LOOK_S
        self._shunned_until_s: dict[str, float] = {}  # by node
        self._pools: dict[tuple[str, str | None], Pool] = {}
        self._starting: dict[ObjectRef[Started], tuple[Pool, HostHandle, float]] = {}
        self._flying: dict[ObjectRef[bytes], tuple[Pool, HostHandle, Job, float]] = {}  # oldest first
        self._settled = True  # False when a pool may need a host, or may have one to spare
        try:
            self._placement.check(self._requests)
            if sticky:
                self._placement.check_names()
        except UserError:
            self.close()
            raise

    # Messages in

    def _enqueue(self, client: int, packed: bytes) -> None:
        self._pool_of(self.roster[client]).queue.push(Job(client, packed), self._durations.expected_s(client))
        self._settled = False

    def _pool_of(self, member: Member) -> Pool:
        """The pool of a member's class, and if state is sticky, on its node: the same one in every run."""
        request = self._requests.get(member.device_class)
        if request is None:
            known = ", ".join(sorted(self._requests))
            raise UserError(
                f"client {member.client}: device class '{member.device_class}' has no host request: {known}"
            )
        nodes = self._placement.nodes_for(request) if self._sticky else [None]
        key = (member.device_class, nodes[member.client % len(nodes)])
        if key not in self._pools:
            self._pools[key] = Pool(member.device_class, request, self._limit(request), key[1])
        return self._pools[key]

    def _limit(self, request: HostRequest) -> int:
        """The most hosts of a class."""
        room = self._placement.room(request)
        return room if self._hosts_per_class is None else min(room, self._hosts_per_class)

    # One step

    def _work(self, wait_s: float) -> bool:
        if time.monotonic() >= self._look_at_s:
            self._look_at_nodes()
        if not self._settled:
            self._settle()
        if not self._flying and not self._starting:
            return False
        ready, _ = ray.wait([*self._flying, *self._starting], num_returns=1, timeout=self._bounded(wait_s))
        for ref in ready:
            if ref in self._flying:
                self._land(ref)
            else:
                self._open(ref)
        self._enforce_limits()
        return True

    def _bounded(self, wait_s: float) -> float:
        """Wake up in time for the oldest message's deadline."""
        if self._deadline_s is None or not self._flying:
            return wait_s
        oldest_s = next(iter(self._flying.values()))[3]
        return max(0.0, min(wait_s, oldest_s + self._deadline_s - time.monotonic()))

    def _dispatch(self, pool: Pool, host: HostHandle) -> None:
        """Give a free host the next message of its pool, or note that it is idle."""
        if not pool.queue:
            pool.idle.append(host)
            self._settled = False
            return
        job = pool.queue.pop()
        node_config = self.roster[job.client].node_config
        ref: ObjectRef[bytes] = host.actor.handle.remote(job.packed, node_id_of(job.client), node_config)
        self._flying[ref] = (pool, host, job, time.monotonic())

    def _land(self, ref: ObjectRef[bytes]) -> None:
        """Take a reply, or learn that the host died under the message."""
        pool, host, job, since_s = self._flying.pop(ref)
        try:
            payload = unseal(ray.get(ref))
        except RayError as error:
            self._lose(pool, host, "host_died", job.client)
            self._retry(
                pool, job, Reason.OUT_OF_MEMORY if isinstance(error, OutOfMemoryError) else Reason.HOST_DIED
            )
            return
        self._durations.took(job.client, time.monotonic() - since_s)
        self._deliver(job.packed, payload)
        self._dispatch(pool, host)

    def _retry(self, pool: Pool, job: Job, reason: Reason) -> None:
        job.attempts += 1
        if job.attempts > self._retries:
            self._deliver(job.packed, failure(reason))
        else:
            pool.queue.push(job)
            self._settled = False

    def _enforce_limits(self) -> None:
        """Kill hosts that are over the deadline, and answer for them; give up on a host that never starts."""
        now_s = time.monotonic()
        while self._deadline_s is not None and self._flying:
            ref, (pool, host, job, since_s) = next(iter(self._flying.items()))
            if now_s - since_s < self._deadline_s or ray.wait([ref], timeout=0)[0]:
                break
            del self._flying[ref]
            self._lose(pool, host, "deadline_exceeded", job.client)
            self._deliver(job.packed, failure(Reason.DEADLINE))
        for pool, _, since_s in self._starting.values():
            if now_s - since_s > _START_LIMIT_S:
                raise RunError(
                    f"a host of device class '{pool.device_class}' is not up after {_START_LIMIT_S:.0f} s: "
                    "the cluster is taken by other jobs, or the client program hangs while it loads"
                )

    # Hosts

    def _settle(self) -> None:
        """Hand waiting messages to idle hosts, then start hosts, first for the pools that have fewest."""
        self._settled = not self._shunned
        for pool in self._pools.values():
            while pool.queue and pool.idle:
                self._dispatch(pool, pool.idle.pop())
        for pool in self._pools.values():
            if pool.starves and not self._start(pool):
                self._make_room(pool)
        growing = [pool for pool in self._pools.values() if pool.wants_host]
        while growing and self._more_hosts_help():
            growing.sort(key=lambda pool: len(pool.hosts))
            if not self._start(growing[0]) or not growing[0].wants_host:
                del growing[0]

    @property
    def _shunned(self) -> set[str]:
        """Nodes on which a host has just died while it started."""
        return {node_id for node_id, until_s in self._shunned_until_s.items() if time.monotonic() < until_s}

    def _more_hosts_help(self) -> bool:
        """Unless the user says how many: no more hosts than CPUs, for they would only take memory."""
        hosts = sum(len(pool.hosts) for pool in self._pools.values())
        return self._hosts_per_class is not None or hosts < self._placement.cpus

    def _make_room(self, starving: Pool) -> None:
        """Release hosts that have nothing to do until one of the starving pool fits."""
        for pool in self._pools.values():
            while pool.idle and not pool.queue:
                host = pool.idle.pop()
                self._end(pool, host)
                self._on_event(HostEvent("host_released", pool.device_class, host.node_id, host.pid))
                if self._start(starving):
                    return

    def _start(self, pool: Pool) -> bool:
        """Start a host of this pool if one fits now."""
        node_id = self._placement.claim(pool.request, pool.only_node, without=self._shunned)
        if node_id is None:
            return False
        request = pool.request
        actor_class = ray.remote(Host).options(
            num_cpus=request.num_cpus,
            num_gpus=request.num_gpus,
            memory=request.memory_bytes or None,
            resources=dict(request.resources) or None,
            max_restarts=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        actor = cast(ActorHandle[Host], actor_class.remote(*self._program_arguments))
        host = HostHandle(actor, node_id)
        self._starting[host.actor.start.remote()] = (pool, host, time.monotonic())
        pool.hosts.add(host)
        pool.starting += 1
        return True

    def _open(self, ref: ObjectRef[Started]) -> None:
        """A host has started, or died while starting; or its program does not load, which ends the run."""
        pool, host, _ = self._starting.pop(ref)
        pool.starting -= 1
        try:
            host.pid, refusal = ray.get(ref)
        except RayError as error:
            self._shunned_until_s[host.node_id] = time.monotonic() + _SHUN_S
            self._lose(pool, host, "host_died", None)
            pool.failed_starts += 1
            if pool.failed_starts >= _START_ATTEMPTS and not pool.hosts:
                raise RunError(
                    f"hosts of device class '{pool.device_class}' die while they start "
                    f"({type(error).__name__}, {pool.failed_starts} times): see Ray's logs on the node"
                ) from error
            return
        if refusal is not None:
            raise UserError(refusal)
        pool.failed_starts = 0
        self._on_event(HostEvent("host_started", pool.device_class, host.node_id, host.pid))
        self._dispatch(pool, host)

    def _lose(self, pool: Pool, host: HostHandle, kind: EventKind, client: int | None) -> None:
        """Put a dead or hung host out of the books, and its node too if that is gone."""
        self._end(pool, host)
        self._look_at_nodes()
        self._require_nodes()
        self._settled = False
        self._on_event(HostEvent(kind, pool.device_class, host.node_id, host.pid, client))

    def _look_at_nodes(self) -> None:
        """Nodes that have joined get hosts, where state is not bound to those of before; who left keeps no books."""
        self._look_at_s = time.monotonic() + _LOOK_S
        joined, left = self._placement.refresh(self._cluster.nodes(), grow=not self._sticky)
        if not joined and not left:
            return
        for pool in self._pools.values():
            pool.limit = self._limit(pool.request)
        self._settled = False
        for name in left:
            self._notice(f"node {name} has left the cluster")
        for name in joined:
            unused = ", and gets no clients: engine.state is 'sticky', and theirs are on the others"
            self._notice(f"node {name} has joined the cluster{unused if self._sticky else ''}")

    def _require_nodes(self) -> None:
        """Every class must still have a node, and where state is sticky, the very nodes that hold it."""
        for pool in self._pools.values():
            nodes = self._placement.nodes_for(pool.request)
            if not nodes or (pool.only_node is not None and pool.only_node not in nodes):
                raise RunError(
                    f"device class '{pool.device_class}' has lost the Ray node that it runs on: "
                    "resume the run when the node, or Ray itself, is back"
                )

    def _end(self, pool: Pool, host: HostHandle) -> None:
        ray.kill(host.actor, no_restart=True)
        pool.hosts.discard(host)
        self._placement.release(pool.request, host.node_id)

    def close(self) -> None:
        """Kill this grid's hosts, and end Ray if this grid started it. May be called twice."""
        if ray.is_initialized():
            for pool in self._pools.values():
                for host in pool.hosts:
                    ray.kill(host.actor, no_restart=True)
        self._pools.clear()
        self._starting.clear()
        self._flying.clear()
        if self._own_cluster is not None:
            self._own_cluster.close()
