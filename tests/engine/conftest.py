"""Client programs small enough to read at a glance."""

from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedge.engine.roster import ClientProgram, Member, node_id_of

HEADER = """
import os, sys, time
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()

def reply(message, **values):
    return Message(RecordDict({"report": MetricRecord(values)}), reply_to=message)

@app.train()
def train(message, context):
    plan = message.content["plan"]
    client = context.node_id - 1
"""


@pytest.fixture
def program() -> Callable[[str], ClientProgram]:
    """A client program whose train handler has the given body (with `plan`, `client`, `reply` at hand)."""

    def make(body: str) -> ClientProgram:
        indented = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
        return ClientProgram("test", HEADER + indented)

    return make


@pytest.fixture
def fleet() -> Callable[..., list[Member]]:
    """A roster from counts: fleet(a=2, b=1) has clients 0 and 1 of class a, and client 2 of class b."""

    def make(**counts: int) -> list[Member]:
        classes = [device_class for device_class, count in counts.items() for _ in range(count)]
        return [Member(client, name, {"tag": f"{name}-{client}"}) for client, name in enumerate(classes)]

    return make


@pytest.fixture
def plans() -> Callable[..., list[Message]]:
    """One message per client, with the given plan. The grid must exist: it tells Flower who we are."""

    def make(clients: int, **plan: int | float | str) -> list[Message]:
        return [
            Message(RecordDict({"plan": ConfigRecord(dict(plan))}), node_id_of(client), "train")
            for client in range(clients)
        ]

    return make
