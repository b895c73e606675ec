"""A client that does nothing, as a Flower ClientApp: what is left is the cost of carrying messages.

fedge executes this file's text on its hosts; Flower's simulation imports it. The same program in both.
"""

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with one number."""
    return Message(RecordDict({"report": MetricRecord({"value": 1.0})}), reply_to=message)
