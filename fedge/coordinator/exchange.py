"""One exchange with the fleet: plans out, replies in as they come, on any Flower Grid."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from fedge.errors import RunError, UserError
from fedge.privacy.leaving import with_key
from fedge.protocol import REPORT, RoundPlan, content_bytes, status_of
from fedge.scenario.schema import Engine, Scenario
from fedge.scenario.training import Training

_POLL_S = 0.05  # between looks on a Grid whose `pull_messages` does not wait by itself
_PORTION = 500  # messages pushed in one call
_GATHER_S = 60.0  # for a fleet's nodes to come online on a Grid that did not make them


@dataclass(frozen=True)
class Parcel:
    """A plan on its way to one client's node."""

    client: int
    node_id: int
    plan: RoundPlan


def exchange(
    grid: Grid, parcels: Sequence[Parcel], patience_s: float, key: bytes | None = None
) -> Iterator[tuple[int, Message | None]]:
    """Send every parcel; yield (client, reply) as replies come.

    When no reply has come for `patience_s` wall-clock seconds, those still out are yielded with None. key: that of the
    helper, which goes along with every plan (privacy.view = "sums").
    """
    waiting = _push(grid, parcels, key)
    heard_s = time.monotonic()
    while waiting and time.monotonic() - heard_s < patience_s:
        replies = list(grid.pull_messages(waiting.keys()))
        for reply in replies:
            client = waiting.pop(reply.metadata.reply_to_message_id, None)
            if client is not None:
                yield client, reply
        if replies:
            heard_s = time.monotonic()
        elif waiting:
            time.sleep(_POLL_S)
    yield from ((client, None) for client in waiting.values())


def patience_s(grid: Grid, engine: Engine) -> float:
    """How long to wait for the next reply. fedge's own grids answer every message, at its deadline if need be."""
    return math.inf if hasattr(grid, "roster") else engine.deadline_s * (engine.retries + 2)


def _push(grid: Grid, parcels: Sequence[Parcel], key: bytes | None) -> dict[str, int]:
    """Message id -> client. In portions, so that a large fleet's messages never exist all at once."""
    waiting: dict[str, int] = {}
    for start in range(0, len(parcels), _PORTION):
        portion = parcels[start : start + _PORTION]
        messages = [parcel.plan.to_message(parcel.node_id) for parcel in portion]
        for message in messages:
            with_key(message.content, key)
        ids = grid.push_messages(messages)
        waiting |= dict(zip(ids, (parcel.client for parcel in portion), strict=True))
    return waiting


def find_clients(grid: Grid, scenario: Scenario) -> dict[int, int]:
    """Client number -> node id, in client order.

    fedge's own grids know it. On another Grid every node is asked once, with a plan of phase "hello".
    """
    if roster := getattr(grid, "roster", None):
        return dict(zip(range(len(roster)), grid.get_node_ids(), strict=True))
    if scenario.privacy.isolation != "none":
        raise UserError(
            "privacy.isolation is 'client', which fedge's own engines can do (`fedge run`): on this runtime give each "
            "client a node of its own, and set privacy.isolation to 'none'"
        )
    hello = RoundPlan(round=0, phase="hello", prune=False, training=Training())
    nodes = _wait_for_nodes(grid, scenario.clients)
    found = {}
    asked = [Parcel(index, node_id, hello) for index, node_id in enumerate(nodes)]
    for index, reply in exchange(grid, asked, patience_s=scenario.engine.deadline_s):
        if reply is None or reply.has_error():
            status = status_of(reply) if reply else "no reply"
            raise RunError(f"node {nodes[index]} did not say which client it is: {status}")
        found[_client_in(reply)] = nodes[index]
    if sorted(found) != list(range(scenario.clients)):
        raise RunError(
            f"the scenario has {scenario.clients} clients and the nodes answered for {len(found)} of them; "
            "start one node per client, each with its own partition-id"
        )
    return dict(sorted(found.items()))


def _client_in(reply: Message) -> int:
    report = reply.content.metric_records.get(REPORT)
    client = report.get("client") if report else None
    if not isinstance(client, int):
        raise RunError(f"a node says that its client is {client!r}; that must be a whole number")
    return client


def _wait_for_nodes(grid: Grid, wanted: int) -> list[int]:
    end_s = time.monotonic() + _GATHER_S
    while True:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) >= wanted or time.monotonic() > end_s:
            break
        time.sleep(1)
    if len(nodes) != wanted:
        raise RunError(
            f"the scenario has {wanted} clients and the runtime {len(nodes)} nodes; make them equal"
        )
    return nodes


def reply_bytes(reply: Message) -> int:
    """What the reply's payload weighs: its records, or its error's reason."""
    return len((reply.error.reason or "").encode()) if reply.has_error() else content_bytes(reply.content)
