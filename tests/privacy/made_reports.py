"""Reports of made-up devices, and what leaves of them."""

import random
from typing import Any

from flwr.app import Message

from fedge.engine.flower_private import SERVER_NODE_ID, identify
from fedge.privacy.leaving import leaving, with_key
from fedge.protocol import RoundPlan, RoundReport
from fedge.scenario.schema import Scenario
from fedge.scenario.training import Training


def report(client: int, chance: random.Random, round: int = 1, **changes: Any) -> RoundReport:
    """Any that can be true."""
    count = chance.choice([0, 1, 7, 40, 200])
    factory, gained, lost = chance.randint(0, count), 0, 0
    lost = chance.randint(0, factory)
    gained = chance.randint(0, count - factory)
    seen = chance.randint(0, 10**6)
    fields = {
        "samples_seen": seen,
        "samples_kept": chance.randint(0, seen),
        "macs_done": chance.randint(0, 10**13),
        "macs_dense": chance.randint(10**13, 10**14),
        "macs_filter": chance.randint(0, 10**12),
        "bit_operations": chance.randint(0, 9 * 10**18),
        "train_loss": chance.choice([None, 3 * chance.random()]),
        "validation_count": 50,
        "validation_correct": chance.randint(0, 50),
        "test_count": count,
        "factory_correct": factory,
        "told_correct": chance.randint(0, count),
        "test_gained": gained,
        "test_lost": lost,
        "test_correct": factory + gained - lost,
        "parameters": chance.randint(1, 10**6),
        "parameters_dense": 10**6,
        "time_s": 1000 * chance.random(),
        "energy_j": 1000 * chance.random(),
    }
    return RoundReport(round=round, client=client, **fields | changes)


def plan_message(client: int, round: int = 1, key: bytes | None = None) -> Message:
    """The plan of a round as it comes to a device."""
    identify(SERVER_NODE_ID)
    plan = RoundPlan(round=round, phase="train", prune=False, training=Training())
    message = plan.to_message(client + 1)
    with_key(message.content, key)
    return message


def reply(said: RoundReport, scenario: Scenario, key: bytes | None, folder: Any = None) -> Message:
    """What the device sends to the coordinator."""
    message = plan_message(said.client, said.round, key)
    return Message(leaving(said, message, scenario, folder), reply_to=message)
