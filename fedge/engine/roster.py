"""What a grid is told: the program, the devices, and what one host of each device class takes of the machine.

Nothing here imports torch, and a roster may be any sequence, so ten thousand devices need not be ten thousand
objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedge.engine.isolation.room import Isolation

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

NodeConfig = dict[str, int | float | str | bool]


def node_id_of(client: int) -> int:
    """Flower's node id of a client: its number plus one, since 0 is the server."""
    return client + 1


def client_of(node_id: int) -> int:
    """The client behind a Flower node id; the inverse of `node_id_of`."""
    return node_id - 1


@dataclass(frozen=True)
class ClientProgram:
    """A client program as text. A host executes it once, in a module of its own; it must define `app`, a
    ClientApp, whose outermost mod is `gate` (module:function) where one is asked for.

    files: path -> text of modules of its own that it imports. is_package: the source is a package's `__init__`.
    One host carries many clients, so what a program keeps in a global passes from one to the next. isolation: each
    message is answered in a process of its own, which loads the program anew.
    """

    name: str
    source: str
    gate: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    is_package: bool = False
    isolation: Isolation | None = None


@dataclass(frozen=True)
class Member:
    """One simulated device. `node_config` is what Flower shows the client program as `context.node_config`.

    A roster is a sequence in which member k is client k.
    """

    client: int
    device_class: str
    node_config: NodeConfig = field(default_factory=dict)


@dataclass(frozen=True)
class HostRequest:
    """What one host of a device class takes of a Ray node; a host runs one client at a time.

    `num_cpus` must be above 0 (Ray would put any number of hosts without it on one node); 0 bytes asks for no
    memory in particular; `resources` are Ray's custom resources, which bind a class to the nodes that have
    them.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_bytes: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)
