"""The untrained client: the network as it was shipped. With training.prior = "em" its answers are corrected."""

from flwr.clientapp import ClientApp

from fedge.device.device import Device
from fedge.device.handler import on_device
from fedge.privacy.egress import egress_gate
from fedge.protocol import RoundPlan, RoundReport

app = ClientApp(mods=[egress_gate])


@app.train()
@on_device
def answer(device: Device, plan: RoundPlan) -> RoundReport:
    """One round without a training step."""
    return device.report()
