"""A client that opens no data and trains nothing, but sends a whole report through the egress gate.

What is left of a run is the coordinator and the engine: plans, replies, checks, results on disk.
"""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedge.privacy.egress import egress_gate
from fedge.privacy.vouching import vouch
from fedge.protocol import RoundPlan, RoundReport

app = ClientApp(mods=[egress_gate])


@app.train()
def report(message: Message, context: Context) -> Message:
    """Answer with made-up counts, for which it vouches in the device's place."""
    plan = RoundPlan.from_message(message)
    counts = {"samples_seen": 4, "samples_kept": 4, "test_correct": 1, "test_count": 1, "test_gained": 1}
    made_up = RoundReport(round=plan.round, client=context.node_id - 1, **counts)
    return vouch(made_up).reply_to(message)
