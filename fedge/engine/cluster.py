"""A Ray cluster for one run: started here, or joined because the scenario names its address.

Preparation runs as a Ray task, so that the process which coordinates neither imports torch nor opens a data
file.
"""

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import ray
from ray import ObjectRef
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fedge.engine.mailbox import Mailbox, Numbers
from fedge.engine.placement import Node
from fedge.engine.tasks import JsonValue, call, unpack
from fedge.errors import RunError, UserError

_OBJECT_STORE_BYTES = 80 * 2**20  # Ray's least is 75 MB; messages are a few kilobytes and bypass it
_PROBE_S = 5.0
_LISTEN_S = 0.2  # between two looks at how far tasks are
# Above this process's own. Ray's 15 leaves hosts a thirtieth of a core that somebody else wants: beside two busy
# processes on two cores quickstart took 270 s of wall clock instead of 28. Who wants to yield says `nice fedge run`.
_NICENESS = 0


class RayCluster:
    """A context manager: `address` "local" starts a Ray of our own, anything else joins a running one.

    A Ray that this process is connected to already is used as it is. `close` shuts Ray down only if we
    started or joined it. `num_cpus` is for a Ray of our own: the CPUs it may use (default: the machine's).
    """

    def __init__(self, address: str = "local", *, num_cpus: float | None = None) -> None:
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect(address, num_cpus)

    def _connect(self, address: str, num_cpus: float | None) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address != "local":
            probe(address)
        if address == "local":
            options |= {
                "include_dashboard": False,
                "num_cpus": num_cpus,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_system_config": {"worker_niceness": _NICENESS},
            }
        try:
            with _own_sigterm():
                ray.init(address=address, **options)
        except Exception as error:
            raise RunError(f"Ray did not start: {_first_line(error)}") from error

    def nodes(self) -> list[Node]:
        """The nodes that are alive, with a name for each that survives a restart of Ray."""
        return [
            Node(node["NodeID"], f"{node['NodeName']}:{node['NodeManagerAddress']}", dict(node["Resources"]))
            for node in ray.nodes()
            if node["Alive"]
        ]

    def run_task(
        self, target: str, arguments: Mapping[str, JsonValue], *, num_cpus: float = 1.0
    ) -> JsonValue:
        """Call `package.module:function(**arguments)` in a Ray worker; arguments and result are JSON.

        A FedgeError comes back as the same class with the same line; anything else is a RunError that names the
        exception and the line that raised it.
        """
        return self.run_tasks(target, arguments, num_cpus=num_cpus)[0]

    def run_tasks(
        self,
        target: str,
        arguments: Mapping[str, JsonValue],
        *,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        on_every_node: bool = False,
        hear: Callable[[Numbers], None] | None = None,
    ) -> list[JsonValue]:
        """The same; `on_every_node` calls it once on each node that has the CPUs (and the share of a GPU), for
        preparation on local disks.

        hear: is given the numbers that the target hands to its argument `tell`; of several calls, those of the one that
        is furthest behind. The results, one per call, in the order of the nodes' names.
        """
        needs = {"CPU": num_cpus, "GPU": num_gpus}
        nodes = [
            node
            for node in self.nodes()
            if all(node.capacity.get(name, 0.0) >= need for name, need in needs.items())
        ]
        if not nodes:
            gpus = f" and {num_gpus:g} GPU" if num_gpus else ""
            raise UserError(
                f"{target} needs {num_cpus:g} CPU{gpus}, and no Ray node has that: start Ray with more"
            )
        nodes.sort(key=lambda node: node.name)
        places = [NodeAffinitySchedulingStrategy(node.node_id, soft=False) for node in nodes]
        task = ray.remote(_call)
        boxes = [Mailbox() for _ in (places if on_every_node else [None])]
        refs = [
            task.options(
                num_cpus=num_cpus, num_gpus=num_gpus, max_retries=0, scheduling_strategy=place
            ).remote(target, dict(arguments), None if hear is None else box.name)
            for box, place in zip(boxes, places if on_every_node else ["DEFAULT"], strict=True)
        ]
        try:
            if hear is not None:
                _listen(refs, boxes, hear)
            return [unpack(answer) for answer in ray.get(refs)]
        except RayError as error:
            raise RunError(f"{target}: its Ray worker ended ({type(error).__name__})") from error

    def close(self) -> None:
        """Disconnect; ends the Ray processes that we started. May be called twice."""
        if self._ours:
            ray.shutdown()
            self._ours = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _call(target: str, arguments: dict[str, JsonValue], mailbox: str | None) -> str:
    """`call`, in a worker."""
    return call(target, arguments, None if mailbox is None else Mailbox(mailbox).put)


def _listen(
    refs: Sequence[ObjectRef[str]], boxes: Sequence[Mailbox], hear: Callable[[Numbers], None]
) -> None:
    """Until every task has ended: what is told by the one that is furthest behind, each word once."""
    latest: Numbers | None = None
    waiting = list(refs)
    try:
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_LISTEN_S)
            told = [numbers for box in boxes if (numbers := box.get()) is not None]
            if told and min(told) != latest:
                latest = min(told)
                hear(latest)
    finally:
        for box in boxes:
            box.remove()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """What this process does on SIGTERM stays what it was: Ray would print a crash's stack trace and end it.

    Ray's handler of the time in between ends in SystemExit; then ours is called. Only the main thread has handlers.
    """
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        yield
    except SystemExit:
        before(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def probe(address: str) -> None:
    """Raise UserError unless somebody listens there; Ray itself would try for a minute, then end the process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(
            f"engine.address is '{address}'; it must be \"local\" or host:port, as `ray start` prints it"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_PROBE_S).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at '{address}' ({error}): start one with `ray start --head`, "
            'or use engine.address = "local"'
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
