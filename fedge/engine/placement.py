"""Which node a host goes to. The grid keeps the books itself, so that no host ever waits unseen for a place.

Ray queues an actor that does not fit, silently and for ever if it never can. Here a request that no node can
satisfy is refused before anything starts, and a host is only started where its share is free of this grid's
other hosts.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from fedge.engine.roster import HostRequest
from fedge.errors import UserError

_SLACK = 1e-6  # Ray counts in ten-thousandths; sums of floats such as 0.1 must not miss by a rounding

Needs = dict[str, float]


@dataclass
class Node:
    """One Ray node: its id, a name that survives a restart of Ray, and what it offers in Ray's units."""

    node_id: str
    name: str
    capacity: Needs
    free: Needs = field(init=False)

    def __post_init__(self) -> None:
        self.free = dict(self.capacity)


def needs_of(request: HostRequest) -> Needs:
    """A request in Ray's resource names and units (CPU, GPU, memory in bytes, custom), without zeros."""
    needs = {"CPU": request.num_cpus, "GPU": request.num_gpus, "memory": float(request.memory_bytes)}
    return {name: amount for name, amount in {**needs, **request.resources}.items() if amount}


def _fits(needs: Needs, offer: Needs) -> bool:
    return all(offer.get(name, 0.0) + _SLACK >= amount for name, amount in needs.items())


class Placement:
    """The nodes of a cluster and what this grid's hosts have claimed of each."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = {node.node_id: node for node in sorted(nodes, key=lambda node: node.name)}
        self._passed: set[str] = set()  # nodes that joined and were not taken in

    def check(self, requests: Mapping[str, HostRequest]) -> None:
        """Raise UserError, with need and available, if one host of some class could never start on any
        node.
        """
        for device_class, request in requests.items():
            if request.num_cpus <= 0:
                raise UserError(
                    f"device class '{device_class}': num_cpus is {request.num_cpus}; it must be above 0"
                )
            if not self.nodes_for(request):
                raise UserError(self._refusal(device_class, needs_of(request)))

    def _refusal(self, device_class: str, needs: Needs) -> str:
        best = {name: max(node.capacity.get(name, 0.0) for node in self._nodes.values()) for name in needs}
        short = [name for name in needs if needs[name] > best[name] + _SLACK]
        if not short:
            return (
                f"device class '{device_class}': one host needs {_describe(needs)} on one node, and of the "
                f"{len(self._nodes)} nodes each has some of it but none all: ask for less, or add such a node"
            )
        need, have = (
            _describe({name: needs[name] for name in short}),
            _describe({name: best[name] for name in short}),
        )
        return (
            f"device class '{device_class}': one host needs {need}, and the best node has {have}: "
            f"ask for less in the fleet's `ray` table, or add a node that has it"
        )

    def check_names(self) -> None:
        """Raise UserError unless each node has a name of its own, by which device state finds its node
        again.
        """
        names = [node.name for node in self._nodes.values()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(
                f"several Ray nodes are called '{twice[0]}', so sticky device state cannot tell them apart: "
                "start each with `ray start --node-name ...`"
            )

    def nodes_for(self, request: HostRequest) -> list[str]:
        """Ids of the nodes that could hold such a host if they were empty, by name, so the order survives a
        restart.
        """
        needs = needs_of(request)
        return [node.node_id for node in self._nodes.values() if _fits(needs, node.capacity)]

    def room(self, request: HostRequest) -> int:
        """How many such hosts the whole cluster holds when it is empty."""
        needs = needs_of(request)
        return sum(
            int(min((node.capacity.get(name, 0.0) + _SLACK) / amount for name, amount in needs.items()))
            for node in self._nodes.values()
        )

    @property
    def cpus(self) -> float:
        """CPUs of all nodes together."""
        return sum(node.capacity.get("CPU", 0.0) for node in self._nodes.values())

    def claim(
        self, request: HostRequest, only: str | None = None, *, without: Set[str] = frozenset()
    ) -> str | None:
        """Book one host on the node with most free CPUs (or on node `only`); its id, or None if none has room
        now.

        without: nodes that are left alone where there are others.
        """
        needs = needs_of(request)
        candidates = [
            node
            for node in self._nodes.values()
            if (only is None or node.node_id == only)
            and _fits(needs, node.free)
            and (node.node_id not in without or without >= self._nodes.keys())
        ]
        if not candidates:
            return None
        node = max(candidates, key=lambda node: node.free.get("CPU", 0.0))
        for name, amount in needs.items():
            node.free[name] -= amount
        return node.node_id

    def release(self, request: HostRequest, node_id: str) -> None:
        """Give back what a host had claimed. A node that is gone keeps no books."""
        if node_id in self._nodes:
            for name, amount in needs_of(request).items():
                self._nodes[node_id].free[name] += amount

    def refresh(self, alive: Iterable[Node], *, grow: bool) -> tuple[list[str], list[str]]:
        """Forget nodes that have left the cluster and, where it may `grow`, take in those that have joined.

        The names of nodes that are new, whether taken in or not, and of those that are gone; each is told once.
        """
        found = {node.node_id: node for node in alive}
        left = [node.name for node_id, node in self._nodes.items() if node_id not in found]
        joined = [node for node_id, node in found.items() if node_id not in self._nodes.keys() | self._passed]
        kept = [node for node_id, node in self._nodes.items() if node_id in found]
        if grow:
            kept += joined
        else:
            self._passed |= {node.node_id for node in joined}
        self._nodes = {node.node_id: node for node in sorted(kept, key=lambda node: node.name)}
        return [node.name for node in joined], left


def _describe(needs: Needs) -> str:
    """`2 CPU, 512 MB memory`"""
    return ", ".join(
        f"{amount / 2**20:.0f} MB memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in needs.items()
    )
