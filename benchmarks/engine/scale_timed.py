"""clients/dense.py, which also writes down how long each message kept its host busy within the gate.

A line a message, in the file of this process in the folder that FEDGE_SCALE_TIMES names: its round, and seconds.
"""

import os
import time
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedge.device.device import Device
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate
from fedge.protocol import RoundPlan, RoundReport

TIMES = Path(os.environ.get("FEDGE_SCALE_TIMES", ".")) / str(os.getpid())


def timed(message: Message, context: Context, handle: ClientAppCallable) -> Message:
    """Handle the message, and write down how long that took."""
    began_s = time.perf_counter()
    reply = handle(message, context)
    with TIMES.open("a") as file:
        file.write(f"{RoundPlan.from_message(message).round} {time.perf_counter() - began_s}\n")
    return reply


app = ClientApp(mods=[egress_gate, timed])


@app.train()
@on_device
def improve(device: Device, plan: RoundPlan) -> RoundReport:
    """As the dense client."""
    device.train()
    return device.report()
